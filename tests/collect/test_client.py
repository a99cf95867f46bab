"""One completion over a real connection, with every way in which it can fail."""

from __future__ import annotations

import time

import pytest

from autodeco_edge.collect.client import ChatClient, _asked_pause
from autodeco_edge.errors import BusyError, FormatError, MissingInputError, UsageError

BODY = {
    "messages": [{"role": "user", "content": "Compute 4 + 5."}],
    "seed": 3,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_tokens": 60,
}
KEY = "sk-secret"


def client(server, **options) -> ChatClient:
    return ChatClient(server.url, **{"key": KEY, "timeout_s": 20, "retries": 2, "pause_s": 0.01, **options})


@pytest.fixture
def answer(server):
    return client(server).complete(BODY)


def test_an_answer(answer, server):
    assert answer.finish == "stop" and "\\boxed{" in answer.text and answer.n_tokens > 5
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}" and server.requests == [BODY]


@pytest.mark.parametrize(
    "faults", [["429"], ["500", "503"], ["cut"], ["reset", "cut"], ["garbage"], ["types"]], ids=str
)
def test_what_passes_is_tried_again(server, answer, faults):
    server.faults = list(faults)
    assert client(server).complete(BODY) == answer and not server.faults


def test_a_slow_answer_is_tried_again(server, answer):
    server.faults = ["slow"]
    assert client(server, timeout_s=1.0).complete(BODY) == answer


LASTING = {
    "429": (BusyError, "answers 429"),
    "500": (BusyError, "no 500 today, key Bearer ***"),
    "cut": (MissingInputError, "broke off"),
    "reset": (MissingInputError, "broke off"),
    "garbage": (FormatError, "not JSON): <html>Please log in</html>"),
    "types": (FormatError, "'content' of the message is int"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_is_said(server, fault):
    kind, says = LASTING[fault]
    server.always = fault
    with pytest.raises(kind) as caught:
        client(server, retries=1).complete(BODY)
    line = str(caught.value)
    assert says in line and server.url in line and "\n" not in line and KEY not in line


@pytest.mark.parametrize("fault, says", [("400", "no 400 today"), ("401", "OPENAI_API_KEY"), ("redirect", "302")])
def test_a_refusal_is_not_tried_again(server, fault, says):
    server.faults = [fault, "500"]
    with pytest.raises(UsageError) as caught:
        client(server).complete(BODY)
    assert says in str(caught.value) and KEY not in str(caught.value) and server.faults == ["500"]


def test_wrong_path(server):
    with pytest.raises(UsageError, match="ends in /v1"):
        ChatClient(server.url.removesuffix("/v1"), retries=0).complete(BODY)


def test_nobody_there():
    with pytest.raises(MissingInputError, match="Connection refused.*is it running"):
        ChatClient("http://127.0.0.1:1/v1", retries=1, pause_s=0.01).complete(BODY)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "file:///etc/passwd", "http://", "http://a:b/v1", "http://a b/"])
def test_no_url(url):
    with pytest.raises(UsageError, match="endpoint: allowed a URL"):
        ChatClient(url)


def test_a_key_that_is_none_is_not_shown():
    with pytest.raises(UsageError) as caught:
        ChatClient("http://127.0.0.1:1/v1", key="sk-se\ncret")
    assert "cret" not in str(caught.value)


def test_retry_after_is_honoured():
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert _asked_pause("7") == 7 and 25 < _asked_pause(soon) <= 30
    assert _asked_pause(None) is None and _asked_pause("soon") is None
    patient = ChatClient("http://127.0.0.1:1/v1", pause_s=1.0)
    assert patient._pause(0, 7.0) == 7 and patient._pause(0, 1e9) == 60  # bounded
    assert 6 <= patient._pause(3, None) <= 10  # 8 s, give or take a quarter
