"""A chat template's text, made in the environment that transformers gives to templates, name by name.

Owns that environment and the bounds on what comes out; `io/child.py` runs it in a process within limits. Imports Jinja
and nothing of this package. A line of JSON in, {"template", "variables", "max_text"}; a line out: {"text"}, {"error"}, or {"limit"} where a bound was met.

tests/text/test_environment.py renders templates here and in transformers side by side.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_ERROR = 300  # characters of a foreign text in an error line


class TooLong(Exception):
    """More text than a prompt may have."""


def environment() -> ImmutableSandboxedEnvironment:
    """What a template may use: Jinja's own names, and those that transformers adds or replaces."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    env.globals["dict"] = Dict()
    env.globals["namespace"] = PlainNamespace
    return env


class GenerationTag(Extension):
    """``{% generation %}...{% endgeneration %}``: marks what the assistant wrote, for training; the text is its body's."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("body_of"), [], [], body).set_lineno(line)

    def body_of(self, caller: Macro) -> str:
        return caller()


class Dict:
    """``dict`` without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class PlainNamespace(Namespace):
    """``namespace`` that holds no name with an underscore in front."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace holds no name that begins with an underscore; got {name!r}")


def to_json(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Jinja's own filter escapes HTML."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> None:
    raise TemplateError(message)


def rendered(template: Template, variables: dict[str, Any], max_text: int) -> str:
    """Raises TooLong as soon as there are more than ``max_text`` characters."""
    text, size = io.StringIO(), 0
    for piece in template.generate(variables):
        size += len(piece)
        if size > max_text:
            raise TooLong(f"it made more than {max_text} characters")
        text.write(piece)
    return text.getvalue()


def start() -> Callable[[bytes], bytes]:
    compiled = lru_cache(maxsize=8)(environment().from_string)

    def outcome(request: dict[str, Any]) -> dict[str, str]:
        try:
            return {"text": rendered(compiled(request["template"]), request["variables"], request["max_text"])}
        except TooLong as error:
            return {"limit": str(error)}
        except MemoryError:
            return {"limit": "it needs more memory than it may have"}
        except Exception as error:  # whatever a foreign template does, RecursionError included
            return {"error": one_line(error)}

    return lambda line: json.dumps(outcome(json.loads(line))).encode()


def one_line(error: Exception) -> str:
    """The template's own words, bounded."""
    text = " ".join(str(error)[: 4 * MAX_ERROR].split()) or type(error).__name__
    return text if len(text) <= MAX_ERROR else text[:MAX_ERROR] + "..."
