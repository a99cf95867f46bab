"""llguidance's refusals in our words: where in the text that was given, and what is wrong there.

Owns the reading of its messages, whose places are those of the Lark that it was handed: ours has a line of options before
the first line of the user's. A message that is not known here is passed on, in one line and as llguidance's.
"""

from __future__ import annotations

import re

_LISTING = re.compile(r"<state>|<backtrace>|<non-verbose/>|\n +\d+ \| |\n  while processing")
_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_REGEX = re.compile(
    r'invalid regex ".*?" \(in regex\): regex parse error:\n    (.*)\n    ( *)\^+\nerror: (.*)', re.DOTALL
)
_FOUND = {'"string..."': "a text", "'\\n'": "the end of the line"}
_Words = tuple[tuple[str, str], ...]

_SIZES: _Words = (
    (r"TooComplex|too complex|\) too big|too large; must|schema too large|Current row has|too many (states|expressions)", "too large to be followed; make it smaller"),
)  # fmt: skip
_GRAMMAR: _Words = (
    (r"NoExtension", "no text can follow here: the rules ask for what cannot be, or lead back to themselves without an end"),
    (r'unknown name: "(.*?)"', "no rule is named {}"),
    (r'duplicate (?:rule|token).*?: "(.*?)"', "two rules are named {}"),
    (r'circular reference in token "(.*?)"', "the token {} leads back to itself; in small letters it is a rule, and may"),
    (r'unknown special token: "(.*?)"', "the model has no token {}"),
    (r"Token range end too large: (\d+)", "the model has no token {}"),
    (r'invalid token range: "(.*?)"', "a range of tokens must go upwards; got {}"),
    (r"range end must be >= start, got \((\d+), (\d+)\)", "the smaller number of repetitions stands first; got {}, {}"),
    (r"Unknown common regex: (\S+?);", "there is no {} to import"),
    (r"unknown grammar @(\w+)", "there is no other grammar to go on in; got @{}"),
    (r"no start rule found", "no rule is named start"),
    (r"& is only supported for tokens", "& stands between tokens alone, whose names are in capitals"),
    (r"lexer error", "no sign of Lark; perhaps a quotation mark, a slash or a bracket is not closed"),
    (r'expecting rule, token or statement \(at "(.*?)" ', "expected a rule, a token or the end of the line; got {}"),
    (r"Expected token (.+?), found (.+?) \(at", "expected {}; got {}"),
    (r'Expected value \(at "(.*?)" ', "expected a name, a text or an expression; got {}"),
)  # fmt: skip
_EXPRESSION: _Words = (
    (r"unclosed group", "( is not closed"),
    (r"unopened group", ") was not opened"),
    (r"unclosed character class", "[ is not closed"),
    (r"unclosed counted repetition", "{{ is not closed"),
    (r"look-around", "what looks ahead or behind is not supported"),
    (r"backreferences", "a reference back to a group is not supported"),
    (r"missing expression", "nothing stands before it to be repeated"),
    (r"invalid repetition count range", "the smaller number of repetitions stands first"),
    (r"invalid character class range", "a range must go upwards"),
    (r"Unicode property", "Unicode has no such property"),
    (r"unrecognized escape sequence", "there is no such escape"),
    (r"incomplete escape sequence", "the escape is not finished"),
    (r"unrecognized flag", "there is no such flag"),
    (r"invalid hexadecimal digit", "expected a hexadecimal digit"),
)
_SCHEMA: _Words = (
    (r"Unimplemented keys: \[(.*)\]", "{} cannot be held to while a reply is drawn; leave it out"),
    (r"Resource '(.*?)' is not present", "$ref {}: another document is not fetched; write it into $defs"),
    (r"Pointer '(.*?)' does not exist", "$ref #{}: the schema has nothing there"),
    (r"Anchor '(.*?)' does not exist", "$ref #{}: no $anchor has that name"),
    (r"Invalid URI reference '(.*?)'", "'{}' is no reference"),
    (r"oneOf constraints are not supported", "oneOf: whether one alternative alone holds cannot be told as it is drawn; write anyOf"),
    (r"Value for '(\w+)' has too many digits", "{} has too many digits"),
    (r"Unsatisfiable schema: required property '(.*?)' is unsatisfiable", "no value satisfies it: required names {}, which may not be there"),
    (r"Unsatisfiable schema: (min\w+) \((\d+)\) is greater than (max\w+) \((\d+)\)", "no value satisfies it: {} {} is above {} {}"),
    (r"Unsatisfiable schema: (\w+) \((\S+)\) is greater than (\w+) \((\S+)\)", "no value satisfies it: {} {} is above {} {}"),
    (r"Unsatisfiable schema: minProperties > maxProperties", "no value satisfies it: minProperties is above maxProperties"),
    (r"Unsatisfiable schema: anyOf is empty", "no value satisfies it: there is no alternative"),
    (r"Unsatisfiable schema: incompatible types", "no value satisfies it: two types that exclude each other"),
    (r"Unsatisfiable schema: integer interval (\[.*?\])", "no value satisfies it: there is no integer in {}"),
    (r"Unsatisfiable schema: range (\[.*?\]) does not contain a multiple of (\S+)", "no value satisfies it: there is no multiple of {1} between the bounds"),
    (r"Unsatisfiable schema: Regex is empty", "no value satisfies it: no text is all that is asked for"),
    (r"Unsatisfiable schema: schema is false", "no value satisfies it: every alternative is false"),
    (r"Unsatisfiable schema: (.*?) is unsatisfiable but minItems is (\d+)", "no value satisfies it: {} may not be there, and minItems is {}"),
    (r"schema must be an object or boolean", "a schema is an object, true or false"),
)  # fmt: skip


def of_grammar(message: str, first_line: int | None) -> str:
    """first_line: where the user's text begins in the Lark, counted from 1; None where the Lark is not the user's."""
    message = _LISTING.split(message)[0]
    where = _PLACE.match(message)
    said = message[where.end() :] if where else message
    words = _of_expression(said) or _known(said, _GRAMMAR)
    if where is None or first_line is None:
        return words
    return f"line {max(int(where[1]) - first_line + 1, 1)}, column {where[2]}: {words}"


def of_regex(message: str) -> str:
    said = _PLACE.sub("", _LISTING.split(message)[0], count=1)
    if said.startswith("lexer error"):  # the / of Lark behind it was taken for a part
        return "it ends in a backslash that nothing follows"
    return _of_expression(said, "") or _known(said, _GRAMMAR)


def of_schema(message: str) -> str:
    """Without a word of which keyword it is about, where llguidance has none."""
    said = _LISTING.split(message)[0].split("failed to compile JSON schema: ")[-1]
    return _known(said, _SCHEMA).replace('"', "")


def is_of_schema(message: str) -> bool:
    return "failed to compile JSON schema: " in message


def _of_expression(said: str, what: str = "the expression, ") -> str | None:
    """Of a regular expression: its column, and what is wrong there."""
    found = _REGEX.search(said)
    if found is None:
        return None
    pattern, before, reason = found.groups()
    at = len(before)
    got = f"; got {pattern[at : at + 20]}" if pattern[at:] else ""
    return f"{what}column {at + 1}: {_known(reason, _EXPRESSION)}{got}"


def _known(said: str, table: _Words) -> str:
    said = " ".join(said.split())[:300]
    for pattern, words in (*_SIZES, *table):
        if found := re.search(pattern, said):
            return words.format(*(_FOUND.get(part, part) for part in found.groups("")))
    return f"llguidance says: {said}" if said else "no reason given"
