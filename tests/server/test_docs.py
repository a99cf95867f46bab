"""The page says what the server does: its examples run, its routes and fields are those that there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from autodeco_edge.server import schema, wire
from tests.support.serving import WAIT, ask

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "server.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.S)
CURLS = [c for kind, text in BLOCKS if kind == "sh" for c in re.findall(r"^curl .*?(?=^curl |\Z)", text, re.S | re.M)]
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]


def test_there_are_examples():
    assert len(CURLS) == 6 and len(PROGRAMS) == 3


@pytest.mark.parametrize("command", CURLS, ids=lambda c: c[:50])
def test_curl(server, command):
    done = subprocess.run(
        ["sh", "-c", command.replace("http://127.0.0.1:8080", server.url).replace("curl ", "curl -sf ", 1)],
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    if done.returncode == 127:
        pytest.skip("curl is not installed")
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("text", PROGRAMS, ids=range(len(PROGRAMS)))
def test_program(server, text):
    done = subprocess.run(
        [sys.executable, "-c", text.replace("http://127.0.0.1:8080", server.url)],
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0 and len(done.stdout) > 10, done.stderr


def test_openapi_is_up_to_date():
    done = subprocess.run([sys.executable, DOCS / "make_openapi.py", "--check"], timeout=WAIT)
    assert done.returncode == 0, "run  python docs/make_openapi.py"


def test_every_route_and_every_field_is_named():
    document = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
    for path in document["paths"]:
        assert path.replace("{name}", "NAME") in PAGE, path
    fields = {*wire.ChatRequest.model_fields, *wire.CompletionRequest.model_fields, *wire.AutodecoRequest.model_fields}
    missing = {field for field in fields if f"`{field}`" not in PAGE and f"`{field}." not in PAGE}
    assert not missing


# ---- answers are what the document says ---------------------------------------------------------

CHATS = [
    ask(seed=1),
    ask(seed=1, logprobs=True, top_logprobs=3, n=2, autodeco={"trace": True}),
    ask(seed=1, autodeco={"heads": "none", "trace": True}, logprobs=True),
    ask(seed=1, max_tokens=2, stop="x", response_format={"type": "json_object"}, logprobs=True),
]
TEXTS = [
    {"prompt": "What is 2 + 3?", "seed": 1},
    {"prompt": ["a", "b"], "logprobs": 2, "n": 2, "autodeco": {"trace": True}},
]


def chunks(text: str) -> list[str]:
    events = [line for line in text.split("\n\n") if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    return [event.removeprefix("data: ") for event in events[:-1]]


@pytest.mark.parametrize("body", CHATS, ids=range(len(CHATS)))
def test_chat_answers(server, body):
    schema.ChatCompletion.model_validate_json(server.post("/v1/chat/completions", body).text)
    streamed = server.post("/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    for chunk in chunks(streamed.text):
        schema.ChatCompletionChunk.model_validate_json(chunk)


@pytest.mark.parametrize("body", TEXTS, ids=range(len(TEXTS)))
def test_text_answers(server, body):
    schema.TextCompletion.model_validate_json(server.post("/v1/completions", body).text)
    for chunk in chunks(server.post("/v1/completions", {**body, "stream": True}).text):
        schema.TextCompletionChunk.model_validate_json(chunk)


def test_other_answers(server):
    get = lambda path: httpx.get(server.url + path, timeout=WAIT).text  # noqa: E731
    schema.ModelList.model_validate_json(get("/v1/models"))
    schema.ModelBody.model_validate_json(get("/v1/models/autodeco-demo-q8_0"))
    schema.Health.model_validate_json(get("/health"))
    schema.Props.model_validate_json(get("/props"))
    schema.Error.model_validate_json(get("/nope"))
    for pieces in (False, True):
        schema.Tokens.model_validate_json(server.post("/tokenize", {"content": "Hé 🎉", "with_pieces": pieces}).text)
    schema.PromptText.model_validate_json(server.post("/apply-template", ask()).text)


@pytest.mark.parametrize("text", ["", "Hello", "Hé 🎉 日本", "a\x00b", "<|im_end|>", " \n\t ", "\u202e"])
def test_tokens_and_back(server, text):
    tokens = server.post("/tokenize", {"content": text}).json()["tokens"]
    answer = server.post("/detokenize", {"tokens": tokens})
    schema.Content.model_validate_json(answer.text)
    assert answer.json()["content"] == text
    assert server.post("/detokenize", {"tokens": [2**31 - 1]}).status_code == 400
