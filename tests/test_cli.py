"""`autodeco-edge run` as a process: streams, exit codes, signals, files left behind.

Most runs use a model of 260 tokens with its heads inside, so that one costs little more than starting
Python. Its replies are random bytes: stdout is compared as bytes, and lines are split at "\\n" only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.text.chat import render
from tests.support import warm
from tests.support.letters import make_letters

PROMPT = "hello there"
SEED = ["--seed", "1"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def single(letters, tmp_path_factory) -> Path:
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.merge import merge_single_file

    path = tmp_path_factory.mktemp("single") / "single.gguf"
    merge_single_file(read_checkpoint(letters.checkpoint), letters.gguf, path)
    return path


@pytest.fixture(scope="module")
def model(single) -> Model:
    return Model(single)


def command(*args) -> list:
    return [sys.executable, "-m", "autodeco_edge", *args]


def cli(*args, stdin: bytes | None = None, **options) -> subprocess.CompletedProcess:
    return warm.run(*args, input=stdin, **options)


def run(model, *args, prompt: str | None = PROMPT, **options) -> subprocess.CompletedProcess:
    """A run that must succeed."""
    words = [] if prompt is None else [prompt]
    done = cli("run", *words, "-m", model, "-t", "1", *SEED, *args, **options)
    assert done.returncode == 0, done.stderr
    return done


def objects(data: bytes) -> list[dict]:
    lines = data.decode().split("\n")
    assert lines.pop() == "", "the last line ends too"
    return [json.loads(line) for line in lines]


def run_jsonl(model, *args, **options) -> list[dict]:
    return objects(run(model, "--jsonl", *args, **options).stdout)


def prompt_ids(model, *args, **options) -> list[int]:
    return run_jsonl(model, "-n", "1", *args, **options)[-1]["prompt_ids"]


# ---- the reply and its forms -------------------------------------------------------------------

STATS = (
    r"\[prompt \d+ tokens at \d+/s · reply 12 at \d+/s · context \d+/512"
    r" · mean T \d\.\d\d · mean P \d\.\d\d · on CPU · seed 1\]\n"
)


def test_text(single):
    done = run(single, "-n", "12")
    assert done.stdout.decode() == json.loads(run(single, "-n", "12", "--json").stdout)["text"] + "\n"
    assert re.fullmatch(STATS, done.stderr.decode())


def test_piped_output_has_no_escape_codes(single):
    """JSON escapes an ESC of the reply, so any that is left would be the program's own."""
    for form in ("--json", "--jsonl"):
        done = run(single, "-n", "12", form)
        assert b"\x1b" not in done.stdout + done.stderr
    assert b"\x1b" not in run(single, "-n", "12").stderr
    assert b"\x1b" not in cli("--help").stdout


STEP_FIELDS = {
    "index": int, "id": int, "bytes": list, "text": str, "temperature": float, "top_p": float, "temperature_eff": float,
    "top_p_eff": float, "n_kept": int, "entropy": float, "max_prob": float, "logprob": float,
}  # fmt: skip


def check_steps(steps: list[dict], model: Model) -> None:
    for index, step in enumerate(steps):
        assert {k: type(v) for k, v in step.items()} == STEP_FIELDS
        assert list(step) == list(STEP_FIELDS)
        assert step["index"] == index
        assert bytes(step["bytes"]) == model.token_bytes(step["id"])
        assert 0 < step["temperature"] < 2 and 0 < step["top_p"] < 1
        assert 1 <= step["n_kept"] <= model.n_vocab
        assert step["entropy"] >= 0 and 0 < step["max_prob"] <= 1 and step["logprob"] <= 0


def check_summary(done: dict, steps: list[dict], ids: list[int]) -> None:
    """Means within 1e-12: the same sum, divided in double."""
    fields = ["done", "finish_reason", "prompt_ids", "n_tokens", "mean_temperature", "mean_top_p", "seed", "timings"]
    assert list(done) == fields
    assert done["done"] is True and done["finish_reason"] == "length"
    assert done["prompt_ids"] == ids
    assert (done["n_tokens"], done["seed"]) == (len(steps), 1)
    assert done["mean_temperature"] == pytest.approx(sum(s["temperature"] for s in steps) / len(steps), rel=1e-12)
    assert done["mean_top_p"] == pytest.approx(sum(s["top_p"] for s in steps) / len(steps), rel=1e-12)
    timings = done["timings"]
    assert (timings["prompt_n"], timings["predicted_n"]) == (len(ids), len(steps))
    assert all(timings[k] > 0 for k in ("load_s", "prompt_per_second", "predicted_per_second"))


def test_jsonl(single, model):
    *steps, done = run_jsonl(single, "-n", "12", "--raw")
    assert len(steps) == 12
    check_steps(steps, model)
    check_summary(done, steps, model.tokenize(PROMPT))
    data = b"".join(bytes(s["bytes"]) for s in steps)
    assert data.decode("utf-8", "replace").startswith("".join(s["text"] for s in steps))


def test_json_is_one_object_with_the_same_steps(single, model):
    done = run(single, "-n", "12", "--json", "--raw")
    (whole,) = objects(done.stdout)
    *steps, summary = run_jsonl(single, "-n", "12", "--raw")
    text, tokens = whole.pop("text"), whole.pop("tokens")
    assert tokens == steps
    assert text == b"".join(bytes(s["bytes"]) for s in steps).decode("utf-8", "replace")
    check_summary(whole, steps, model.tokenize(PROMPT))
    assert done.stderr == b""
    assert list(whole) == list(summary)


def test_trace_is_what_jsonl_prints(single, tmp_path):
    trace = tmp_path / "trace.jsonl"
    done = run(single, "-n", "12", "--jsonl", "--trace", trace)
    assert trace.read_bytes() == done.stdout
    assert os.listdir(tmp_path) == ["trace.jsonl"]


def test_trace_beside_text(single, tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"done": true, "an older trace": "is replaced"}\n')
    run(single, "-n", "12", "--trace", trace)
    *steps, done = objects(trace.read_bytes())
    *expected, summary = run_jsonl(single, "-n", "12")
    assert steps == expected
    assert {**done, "timings": None} == {**summary, "timings": None}


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")
def test_trace_into_a_pipe_is_written_as_it_is(single):
    """A rename would put a file in the place of a device or a pipe."""
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe:
        done = run(single, "-n", "4", "--jsonl", "--trace", f"/dev/fd/{writer}", pass_fds=[writer])
        os.close(writer)
        assert pipe.read() == done.stdout


def test_verbose_log_goes_to_stderr(single):
    done = run(single, "-n", "2", "--jsonl", "-v")
    assert len(objects(done.stdout)) == 3
    assert b"llama_model_loader" in done.stderr


# ---- what the options do -----------------------------------------------------------------------


def ids(steps: list[dict]) -> list[int]:
    return [s["id"] for s in steps[:-1]]


def test_seed(single):
    assert ids(run_jsonl(single, "-n", "12")) == ids(run_jsonl(single, "-n", "12"))
    assert ids(run_jsonl(single, "-n", "12")) != ids(run_jsonl(single, "-n", "12", "--seed", "2"))


def test_random_seed_is_reported_and_repeats_the_reply(single):
    def once(*args) -> list[dict]:
        return objects(cli("run", PROMPT, "-m", single, "-t", "1", "-n", "12", "--jsonl", *args).stdout)

    first, second = once(), once()
    assert first[-1]["seed"] != second[-1]["seed"]
    assert ids(once("--seed", str(first[-1]["seed"]))) == ids(first)


def test_heads_beside_the_model_are_the_heads_inside(letters, single):
    beside = run_jsonl(letters.gguf, "-n", "12", "--heads", letters.heads)
    assert beside[:-1] == run_jsonl(single, "-n", "12")[:-1]


def test_cpu_draw_gives_the_same_steps(single):
    assert run_jsonl(single, "-n", "12", "--cpu-draw")[:-1] == run_jsonl(single, "-n", "12")[:-1]


@pytest.mark.parametrize(
    "mode, evaluated",
    [("both", (True, True)), ("temp", (True, False)), ("top-p", (True, True)), ("none", (False, False))],
)
def test_heads_mode(single, mode, evaluated):
    *steps, done = run_jsonl(single, "-n", "4", "--heads-mode", mode)
    assert {(s["temperature"] is not None, s["top_p"] is not None) for s in steps} == {evaluated}
    assert (done["mean_temperature"] is not None, done["mean_top_p"] is not None) == evaluated


def test_temp_and_top_p_multiply(single):
    *steps, _ = run_jsonl(single, "-n", "4", "--temp", "0.5", "--top-p", "0.25")
    assert all(s["temperature_eff"] == 0.5 * s["temperature"] for s in steps)
    assert all(s["top_p_eff"] == 0.25 * s["top_p"] for s in steps)
    assert {s["n_kept"] for s in run_jsonl(single, "-n", "12", "--temp", "0")[:-1]} == {1}


def test_no_tokens(single):
    (done,) = run_jsonl(single, "-n", "0")
    assert (done["finish_reason"], done["n_tokens"], done["mean_temperature"]) == ("length", 0, None)


def test_model_without_heads_says_so(letters):
    done = run(letters.gguf, "-n", "3", "--jsonl")
    assert b"no AutoDeco heads inside" in done.stderr
    assert objects(done.stdout)[0]["temperature"] is None
    assert run(letters.gguf, "-n", "3", "--jsonl", "--heads-mode", "none").stderr == b""


# ---- the prompt -----------------------------------------------------------------------------------


def test_raw_and_chat(single, model):
    assert prompt_ids(single, "--raw") == model.tokenize(PROMPT)
    user = {"role": "user", "content": PROMPT}
    assert prompt_ids(single) == render(model, [user])
    assert prompt_ids(single, "--system", "Be brief.") == render(
        model, [{"role": "system", "content": "Be brief."}, user]
    )
    text = model.detokenize(prompt_ids(single), special=True).decode()
    assert text == f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"


def test_piped_text_comes_before_the_prompt(single, model):
    assert prompt_ids(single, "--raw", stdin=b"one\ntwo\n") == model.tokenize(f"one\ntwo\n{PROMPT}")
    assert prompt_ids(single, "--raw", prompt=None, stdin=b"one\ntwo\n") == model.tokenize("one\ntwo")
    assert prompt_ids(single, "--raw", prompt=None, stdin="größer".encode()) == model.tokenize("größer")


def test_control_tokens_in_a_raw_prompt_stay_text(single, model):
    assert model.eos not in prompt_ids(single, "--raw", prompt="<|im_end|>")


@pytest.mark.skipif(not demo_model().exists(), reason="the demo model is not built yet")
def test_demo_model_is_the_default():
    done = cli("run", "Find two numbers that make 83.", "-n", "24", "--seed", "1", "--jsonl")
    *steps, summary = objects(done.stdout)
    assert done.returncode == 0 and steps
    assert summary["mean_temperature"] is not None and summary["mean_top_p"] is not None


def test_doctor():
    done = cli("doctor")
    assert b"Traceback" not in done.stdout + done.stderr
    assert done.returncode == (0 if demo_model().exists() else 1), done.stdout
    assert (b"FAILED" in done.stdout) == (not demo_model().exists())


def test_doctor_names_the_kernels_that_run():
    assert (
        b"sampler kernels        baseline (" in cli("doctor", env={**os.environ, "AUTODECO_KERNELS": "baseline"}).stdout
    )


# ---- weight ------------------------------------------------------------------------------------------

MODULES_AFTER = """
import sys
from autodeco_edge.cli import main
sys.argv = ["autodeco-edge", *sys.argv[1:]]
try:
    main()
finally:
    print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_run_imports_neither_torch_nor_transformers(single):
    args = ["run", PROMPT, "-m", str(single), "-t", "1", "-n", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", MODULES_AFTER, *args], capture_output=True, stdin=subprocess.DEVNULL, text=True
    )
    loaded = set(done.stderr.split())
    assert done.returncode == 0 and "llama_cpp" in loaded
    assert not loaded & {"torch", "transformers", "accelerate", "tensorflow", "scipy"}


def test_help_is_light():
    """The time is printed, not asserted: it is the machine's as much as the program's."""
    start = time.perf_counter()
    done = cli("--help")
    print(f"--help took {time.perf_counter() - start:.2f} s")
    assert done.returncode == 0 and b"run" in done.stdout and b"..." not in done.stdout.split(b"Commands:")[1]
    listed = subprocess.run([sys.executable, "-c", MODULES_AFTER, "--help"], capture_output=True, text=True)
    assert not set(listed.stderr.split()) & {"torch", "transformers", "llama_cpp", "numpy", "gguf"}


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory, letters, single) -> dict[str, Path]:
    """Broken and foreign files by name."""
    from tests.support.checkpoints import random_heads

    folder = tmp_path_factory.mktemp("files")
    made = {
        "text.gguf": b"this is no model at all, and longer than a header",
        "empty.gguf": b"",
        "magic.gguf": b"GGUF",
        "unknown.gguf": letters.gguf.read_bytes().replace(b"llama", b"lxama"),
    }
    for name, source in (("model", letters.gguf), ("heads", letters.heads), ("single", single)):
        data = source.read_bytes()
        for part in CUTS:
            made[f"{name}-{part}.gguf"] = data[: part if part > 1 else int(len(data) * part)]
    for name, data in made.items():
        (folder / name).write_bytes(data)
    paths = {name: folder / name for name in made}
    paths["wide"] = write_foreign_heads(random_heads(folder / "wide", 48, seed=1), letters, n_embd=48)
    paths["qwen2"] = write_foreign_heads(random_heads(folder / "qwen2", 32, seed=1), letters, arch="qwen2")
    return {**paths, "model": letters.gguf, "heads": letters.heads, "single": single, "folder": folder}


CUTS = [10, 100, 0.3, 0.7, 0.97]  # bytes, or the share of the file that is left


def write_foreign_heads(checkpoint: Path, letters, **changes) -> Path:
    import dataclasses

    from autodeco_edge.convert.base import open_base
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads

    base = dataclasses.replace(open_base(letters.gguf)[1], **changes)
    write_heads(read_checkpoint(checkpoint), checkpoint.with_suffix(".gguf"), base=base)
    return checkpoint.with_suffix(".gguf")


LONG = "x" * 600

# name: (arguments, exit code, what the line must say). {file} is replaced by a path of the fixture.
BAD = {
    "missing model": (["hi", "-m", "missing.gguf"], 66, "missing.gguf: no such file"),
    "folder as model": (["hi", "-m", "{folder}"], 66, "is a folder; give a GGUF file in it"),
    "text as model": (["hi", "-m", "{text.gguf}"], 65, "not a GGUF file"),
    "empty file as model": (["hi", "-m", "{empty.gguf}"], 65, "not a GGUF file"),
    "only a magic": (["hi", "-m", "{magic.gguf}"], 65, "the file ends inside the version"),
    **{f"model cut to {c}": (["hi", "-m", f"{{model-{c}.gguf}}"], 65, "the file is damaged") for c in CUTS},
    **{f"single file cut to {c}": (["hi", "-m", f"{{single-{c}.gguf}}"], 65, "the file is damaged") for c in CUTS},
    "unknown architecture": (["hi", "-m", "{unknown.gguf}"], 65, "unknown model architecture: 'lxama'"),
    "heads as model": (["hi", "-m", "{heads}"], 65, "holds AutoDeco heads; give them as --heads"),
    **{f"heads cut to {c}": (["hi", "-m", "{model}", "--heads", f"{{heads-{c}.gguf}}"], 65, "heads-") for c in CUTS},
    "missing heads": (["hi", "-m", "{model}", "--heads", "missing.gguf"], 66, "missing.gguf: cannot be opened"),
    "folder as heads": (["hi", "-m", "{model}", "--heads", "{folder}"], 65, "is a folder, not a heads file"),
    "text as heads": (["hi", "-m", "{model}", "--heads", "{text.gguf}"], 65, "not a sound GGUF"),
    "model as heads": (["hi", "-m", "{model}", "--heads", "{model}"], 65, "holds no AutoDeco heads"),
    "heads of another width": (["hi", "-m", "{model}", "--heads", "{wide}"], 65, "hidden state of 48"),
    "heads of another architecture": (["hi", "-m", "{model}", "--heads", "{qwen2}"], 65, "architecture qwen2"),
    "empty prompt": (["", "-m", "{single}"], 2, "the prompt is empty"),
    "no prompt": (["-m", "{single}"], 2, "the prompt is empty"),
    "blank prompt": ([" \n", "-m", "{single}"], 2, "the prompt is empty"),
    "prompt in Latin-1": ([b"gr\xf6\xdfer", "-m", "{single}"], 2, "not UTF-8"),
    "prompt too long": ([LONG, "-m", "{single}", "--raw"], 65, "the prompt has 600 tokens, the context 512"),
    "context too small": (
        ["hello", "-m", "{single}", "--raw", "-c", "5"],
        65,
        "the prompt has 5 tokens, the context 5",
    ),
    "trace in no folder": (["hi", "-m", "{single}", "--trace", "nowhere/t.jsonl"], 73, "cannot be written"),
    "trace under a file": (["hi", "-m", "{single}", "--trace", "{model}/t.jsonl"], 73, "cannot be written"),
    "trace is a folder": (["hi", "-m", "{single}", "--trace", "."], 2, "is a folder"),
    "heads mode": (["hi", "-m", "{single}", "--heads-mode", "nonsense"], 2, "allowed both, temp, top-p, none"),
    "temperature below 0": (["hi", "-m", "{single}", "--temp", "-0.1"], 2, "allowed 0 to 100"),
    "temperature nan": (["hi", "-m", "{single}", "--temp", "nan"], 2, "--temp: expected a finite number; got nan"),
    "temperature no number": (["hi", "-m", "{single}", "--temp", "warm"], 2, "--temp"),
    "top-p above 1": (["hi", "-m", "{single}", "--top-p", "1.5"], 2, "allowed 0 to 1"),
    "seed below 0": (["hi", "-m", "{single}", "--seed", "-1"], 2, "allowed 0 to 2^64 - 1"),
    "seed too large": (
        ["hi", "-m", "{single}", "--seed", str(2**64)],
        2,
        "--seed: expected an integer of at most 64 bits",
    ),
    "context of 1": (["hi", "-m", "{single}", "-c", "1"], 2, "context: allowed"),
    "context beyond 32 bits": (["hi", "-m", "{single}", "-c", str(2**32 + 64)], 2, "context: allowed"),
    "threads below 0": (["hi", "-m", "{single}", "-t", "-1"], 2, "threads: allowed"),
    "threads that would crash": (["hi", "-m", "{single}", "-t", "100000"], 2, "threads: allowed"),
    "two forms": (["hi", "-m", "{single}", "--json", "--jsonl"], 2, "exclude each other"),
    "unknown option": (["hi", "-m", "{single}", "--hot"], 2, "--hot"),
    "two prompts": (["hi", "ho ho", "-m", "{single}"], 2, "ho ho"),
}


def fill(argument, files: dict[str, Path]):
    if isinstance(argument, str) and argument.startswith("{"):
        name, rest = argument[1:].split("}")
        return str(files[name]) + rest
    return argument


@pytest.mark.parametrize("arguments, code, says", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_leaves_nothing(files, tmp_path, arguments, code, says):
    words = [fill(a, files) for a in arguments]
    if "--trace" not in words:
        words += ["--trace", "trace.jsonl"]
    if "-t" not in words:
        words += ["-t", "1"]
    done = cli("run", *words, "-n", "4", cwd=tmp_path)
    message = done.stderr.decode()
    assert done.returncode == code, message
    assert message.startswith("autodeco-edge: error: ") and message.count("\n") == 1
    assert says in message
    assert done.stdout == b""
    assert os.listdir(tmp_path) == []


def test_stdin_that_is_no_utf8(single):
    done = cli("run", "-m", single, stdin=b"gr\xf6\xdfer")
    assert done.returncode == 2
    says = b"autodeco-edge: error: the text on stdin: not UTF-8 text (byte 0xF6 at 2); convert it first\n"
    assert done.stderr == says


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk(single):
    words = ["run", "hi", "-m", single, "-t", "1", "-n", "4"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(*words), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 74
    assert done.stderr == b"autodeco-edge: error: stdout: writing failed (No space left on device)\n"
    done = cli(*words, "--trace", "/dev/full")
    assert done.returncode == 74
    assert done.stderr == b"autodeco-edge: error: /dev/full: writing failed (No space left on device)\n"
    assert not Path("/dev/full").is_file(), "a device is not replaced by a file"


# ---- readers that go, and signals --------------------------------------------------------------------


def start(*args) -> subprocess.Popen:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command("run", *args), **pipes)


@pytest.fixture
def long_reply(qwen2, tmp_path):
    """Arguments of a reply of about a minute."""
    files = ["-m", qwen2.gguf, "--heads", qwen2.heads, "--trace", tmp_path / "t.jsonl"]
    return ["hi", *files, "-t", "1", "-c", "4096", "--jsonl", *SEED]


def ended(process: subprocess.Popen, limit_s: float) -> tuple[int, bytes, bytes]:
    """Exit code and the rest of both streams; killed and failed after ``limit_s``."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def check_whole_trace(path: Path, n_seen: int) -> None:
    *steps, done = objects(path.read_bytes())
    assert len(steps) >= n_seen
    assert [s["index"] for s in steps] == list(range(len(steps)))
    assert (done["done"], done["finish_reason"], done["n_tokens"]) == (True, "interrupt", len(steps))
    assert os.listdir(path.parent) == [path.name]


def test_reader_that_has_seen_enough(long_reply, tmp_path):
    process = start(*long_reply)
    assert json.loads(process.stdout.readline())["index"] == 0
    process.stdout.close()
    process.stdout = None
    code, _, err = ended(process, 10)
    assert (code, err) == (0, b"")
    check_whole_trace(tmp_path / "t.jsonl", 1)


def test_interrupt_during_a_reply(long_reply, tmp_path):
    process = start(*long_reply)
    seen = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process, 1.0)  # the promise: within a second
    assert code == 130
    assert b"Traceback" not in err and b"Exception" not in err
    check_whole_trace(tmp_path / "t.jsonl", len(seen))
    lines = b"".join(seen) + out
    assert (tmp_path / "t.jsonl").read_bytes().startswith(lines[: lines.rindex(b"\n") + 1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to see the model being read")
def test_interrupt_during_the_load(long_reply, qwen2, tmp_path):
    process = start(*long_reply)
    deadline = time.monotonic() + 30
    while not has_open(process.pid, qwen2.gguf):
        assert process.poll() is None and time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process, 1.0)
    assert (code, out) == (130, b"")
    assert b"Traceback" not in err and b"Exception" not in err
    assert not list(tmp_path.iterdir())


def has_open(pid: int, path: Path) -> bool:
    """Whether the process has the model in memory or in a file descriptor."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return str(path) in links
