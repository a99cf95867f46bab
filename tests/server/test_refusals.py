"""A request's fields that are refused: in our words, and with the field named."""

from __future__ import annotations

import pydantic
import pytest

from autodeco_edge.server.errors import words_of
from autodeco_edge.server.wire import ChatRequest

GOOD = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
REFUSED = [
    ({"temperature": "hot"}, "temperature: expected a number"),
    ({"temperature": -1}, "temperature: allowed 0 or more; got -1"),
    ({"top_p": 3}, "top_p: allowed 1 or less; got 3"),
    ({"n": 1.5}, "n: expected a whole number; got 1.5"),
    ({"n": True}, "n: expected a whole number; got true"),
    ({"stream": "maybe"}, "stream: expected true or false"),
    ({"model": 5}, "model: expected a text; got 5"),
    ({"messages": []}, "messages: expected at least 1; got 0"),
    ({"messages": "hi"}, "messages: expected an array"),
    (
        {"messages": [{"role": "boss", "content": "x"}]},
        "messages.0.role: allowed 'system', 'developer', 'user', 'assistant' or 'tool'",
    ),
    ({"response_format": {"type": "xml"}}, "response_format: type: allowed 'text', 'json_object', 'json_schema'"),
    ({"response_format": {}}, "response_format: type: is missing"),
    ({"response_format": 5}, "response_format: expected an object; got 5"),
    ({"logit_bias": {"a": 1}}, "logit_bias.a: expected a text that ^[0-9]{1,9}$ matches"),
    ({"logit_bias": [1]}, "logit_bias: expected an object"),
    ({"autodeco": 5}, "autodeco: expected an object; got 5"),
    ({"autodeco": {"heads": "x"}}, "autodeco.heads: allowed 'both', 'temperature', 'top_p' or 'none'"),
    ({"foo": 1}, "foo: not supported by this server; leave it out"),
]


@pytest.mark.parametrize("fields, says", REFUSED)
def test_a_field_is_refused_in_our_words(fields, says):
    with pytest.raises(pydantic.ValidationError) as error:
        ChatRequest.model_validate(GOOD | fields)
    assert words_of(error.value.errors(), GOOD | fields)[0] == says


def test_what_is_written_is_not_repeated():
    """It may be a prompt."""
    secret = GOOD | {"messages": [{"role": "user", "content": {"said": "a secret"}}]}
    with pytest.raises(pydantic.ValidationError) as error:
        ChatRequest.model_validate(secret)
    assert "secret" not in words_of(error.value.errors(), secret)[0]
