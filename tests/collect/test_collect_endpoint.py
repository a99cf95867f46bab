"""``autodeco-edge collect --endpoint`` against a real server on the loopback that answers with the demo model."""

from __future__ import annotations

import json
import signal
import time

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.tasks import Verifier, load_task
from tests.collect.conftest import last_line, lines, run, start

SMALL = ("--problems", "demo:chain", "--count", "6", "-n", "3", "--max-tokens", "120", "--parallel", "4")


def endpoint(server, out, *more: object) -> tuple[object, ...]:
    return ("--endpoint", server.url, *SMALL, "-o", out, *more)


@pytest.fixture(scope="module")
def whole(one_server, tmp_path_factory):
    one_server.reset()
    out = tmp_path_factory.mktemp("endpoint") / "whole.jsonl"
    done = run(*endpoint(one_server, out), "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout), list(one_server.requests)


def test_right_replies_as_messages(whole):
    out, summary, requests = whole
    problems = {problem.id: problem for problem in load_task("demo:chain", count=6, split="train").problems}
    rows = lines(out)
    assert len(rows) == summary["kinds"]["all"]["kept"] >= 5 and summary["kinds"]["all"]["drawn"] == len(requests) == 18
    with Verifier() as verifier:
        pairs = [(problems[row["id"]], row["messages"][-1]["content"]) for row in rows]
        assert all(verdict.right for verdict in verifier.check(pairs))
    for row in rows:
        assert row["messages"][:-1] == list(problems[row["id"]].messages)
    assert len({request["seed"] for request in requests}) == 18 and all(r["seed"] < 2**31 for r in requests)
    sent = {"n": 1, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 120, "stream": False}
    assert all(sent.items() <= request.items() and "model" not in request for request in requests)


def test_faults_change_nothing(whole, server, tmp_path):
    server.faults = ["429", "500", "cut", "garbage", "reset", "429", "types"]
    done = run(*endpoint(server, tmp_path / "out.jsonl"))
    assert done.returncode == 0, done.stderr
    assert not server.faults and (tmp_path / "out.jsonl").read_bytes() == whole[0].read_bytes()


def test_a_server_that_goes_away_and_comes_back(whole, server, tmp_path):
    out = tmp_path / "out.jsonl"
    server.edit = lambda answer: setattr(server, "always", "500") or answer if len(server.requests) >= 7 else answer
    done = run(*endpoint(server, out, "--retries", "0"))
    assert done.returncode == 75 and "problem demo:chain/train/" in last_line(done) and "--resume" in done.stderr
    n_had = len(lines(tmp_path / "out.jsonl.part")) - 1
    assert n_had >= 7 and not out.exists()
    server.reset()
    done = run(*endpoint(server, out, "--resume"))
    assert done.returncode == 0 and len(server.requests) == 18 - n_had
    assert out.read_bytes() == whole[0].read_bytes()


def test_replies_under_way_are_waited_for(server, tmp_path):
    """Of four requests one is refused at once; the other three, and one begun before that was seen, are answered and kept."""
    server.faults = ["400"]
    done = run(*endpoint(server, tmp_path / "out.jsonl"))
    assert done.returncode == 2 and "no 400 today" in last_line(done)
    n = len(server.requests)
    assert 3 <= n <= 6 and len(lines(tmp_path / "out.jsonl.part")) == 1 + n


def test_a_kill_loses_nothing(whole, server, tmp_path):
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    for n in (3, 8):
        child = start(*endpoint(server, out, "--resume"))
        deadline = time.monotonic() + 60
        while not part.exists() or part.read_bytes().count(b"\n") < n:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        child.kill()
        child.communicate()
    assert run(*endpoint(server, out, "--resume")).returncode == 0
    assert out.read_bytes() == whole[0].read_bytes()


def test_ctrl_c_does_not_wait_for_the_server(server, tmp_path):
    server.faults = ["slow"] * 100
    child = start(*endpoint(server, tmp_path / "out.jsonl"))
    deadline = time.monotonic() + 60
    while len(server.faults) > 97:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130 and "Traceback" not in errors
    assert time.monotonic() - begin < 2.0  # a slow answer takes 3 s; the processor is shared


def test_prompts_by_a_template(whole, server, tmp_path):
    """From a GGUF and from a Hugging Face folder: the same text, and the ids that the messages give the trainer."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from autodeco_edge.train.data import load_dataset
    from autodeco_edge.train.gguf_backbone import GgufTokenizer

    model = Model(demo_model())
    folder = tmp_path / "hf"
    folder.mkdir()
    config = {"chat_template": model.chat_template, "eos_token": {"content": "<|im_end|>"}, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    gguf, hf = tmp_path / "gguf.jsonl", tmp_path / "hf.jsonl"
    assert run(*endpoint(server, gguf, "--template-from", demo_model())).returncode == 0
    assert run(*endpoint(server, hf, "--tokenizer", folder)).returncode == 0
    assert gguf.read_bytes() == hf.read_bytes() and "prompt" in lines(gguf)[0]
    by_text, by_messages = (load_dataset(path, GgufTokenizer(model), 512).samples for path in (gguf, whole[0]))
    assert [(s.ids, s.n_prompt) for s in by_text] == [(s.ids, s.n_prompt) for s in by_messages]


@pytest.mark.parametrize("opened", [False, True])
def test_thinking_is_kept(server, tmp_path, opened):
    """A template that opens the thinking itself does not get it twice."""
    server.thinking = True
    out, folder = tmp_path / "out.jsonl", tmp_path / "hf"
    folder.mkdir()
    template = "{% for m in messages %}{{ m.content }}\n{% endfor %}ASSISTANT\n" + ("<think>\n" if opened else "")
    (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text("{}")
    assert run(*endpoint(server, out, "--tokenizer", folder)).returncode == 0
    for row in lines(out):
        text = row["prompt"].partition("ASSISTANT\n")[2] + row["completion"]
        assert text.startswith("<think>\n") and text.count("<think>") == 1
        assert "\n</think>\n\n\\boxed{" in row["completion"]


def test_what_a_server_may_say(server, tmp_path):
    """Empty, cut, half a character: never kept, never the end of the run."""
    said = iter(["", None, "\ud800 \\boxed{1}", "  \n"])

    def edit(answer):
        if len(server.requests) <= 4:
            answer["choices"][0]["message"]["content"] = next(said)
        if len(server.requests) == 5:
            answer["choices"][0]["finish_reason"] = "content_filter"
        return answer

    server.edit = edit
    done = run(*endpoint(server, tmp_path / "out.jsonl", "--parallel", "1"), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["kinds"]["all"]
    assert (figures["empty"], figures["unreadable"], figures["cut"]) == (3, 1, 1)
    assert figures["kept"] == len(lines(tmp_path / "out.jsonl"))


def test_body_and_name_and_key(server, tmp_path):
    more = ("--model-name", "demo", "--body", '{"top_k": 20, "min_p": null, "n": null}', "--limit", "1")
    done = run(*endpoint(server, tmp_path / "out.jsonl", *more), OPENAI_API_KEY="sk-1")
    assert done.returncode in (0, 1), done.stderr  # one problem, three draws: perhaps none is right
    for request, headers in zip(server.requests, server.headers, strict=True):
        assert request["top_k"] == 20 and request["model"] == "demo" and not {"min_p", "n"} & request.keys()
        assert headers["Authorization"] == "Bearer sk-1"


@pytest.mark.parametrize("accept, kept", [("official", [0]), ("math-verify", [0, 1])])
def test_a_file_of_math_problems(server, tmp_path, accept, kept):
    """Three replies to one problem, judged by each rule; the official one evaluates nothing."""
    pytest.importorskip("math_verify")
    said = ["\\boxed{\\frac{1}{2}}", "\\boxed{0.50}", "\\boxed{2}"]
    problems, out = tmp_path / "halves.jsonl", tmp_path / "out.jsonl"
    problems.write_text(json.dumps({"problem": "One by two?", "gt": "\\frac{1}{2}"}) + "\n")

    def edit(answer):
        answer["choices"][0] |= {"finish_reason": "stop"}
        answer["choices"][0]["message"]["content"] = said[len(server.requests) - 1]
        return answer

    server.edit = edit
    options = ("--problems", problems, "-n", "3", "--parallel", "1", "--max-tokens", "200", "--accept", accept)
    done = run("--endpoint", server.url, *options, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["sample"] for row in lines(out)] == kept
    assert list(json.loads(done.stdout)["kinds"]) == ["math", "all"]


REFUSED = {
    "no url": (("--endpoint", "localhost:8080"), 2, "allowed a URL"),
    "gone": (("--endpoint", "http://127.0.0.1:1/v1", "--retries", "0"), 66, "is it running?"),
    "body": (("--endpoint", "http://127.0.0.1:1/v1", "--body", "[1]"), 2, "one JSON object"),
    "option of the other": (("--endpoint", "http://127.0.0.1:1/v1", "--with-heads"), 2, "belongs to -m"),
    "no tokenizer": (("--endpoint", "http://127.0.0.1:1/v1", "--tokenizer", "nowhere"), 66, "tokenizer_config.json"),
}


@pytest.mark.parametrize("arguments, code, says", REFUSED.values(), ids=REFUSED)
def test_refusals(refuse, tmp_path, arguments, code, says):
    found, line = refuse(*arguments, *SMALL, "-o", tmp_path / "out.jsonl")
    assert found == code and line.startswith("autodeco-edge: error: ") and says in line
    assert list(tmp_path.iterdir()) == []  # the next try needs no --resume
