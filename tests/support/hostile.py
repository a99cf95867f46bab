"""Files and texts that somebody might hand to any command: sound ones, damaged ones and ones made to hurt.

Owns a folder of them. ``make(folder)`` writes it and returns the paths, sound ones under GOOD kinds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .letters import make_letters

NAMES = (
    "plain",
    "with blank",
    "new\nline",
    "esc\x1b[31mred",
    "bidi\u202egnp.exe",
    "c1\x9b2J",
    "dollar$x^$",
    "-dash",
    "umläut",
)
TEXTS = (
    "hi", "", " ", "-", "--", "~", "~/x", "~nobody99/x", "0", "-1", "nan", "inf", "1e999", "-0.0", "9" * 30, "0x10", "1_0",
    "true", "\u202e", "\x1b[2J", "\x07", "a\nb", "\udcff", "caf\udce9", "\ud83d", "🎉日本", "x" * 5000, "../../etc/passwd",
    "/dev/null", "/dev/zero", "/dev/full", "/", ".", "user/repo", "user/repo:Q4_K_M", "demo", "demo:make", "demo:",
    "NAME=", "=", "a=b", "0:1", "1:0", "nan:nan", "0.3:1.2", ":", "1e999:", "13=-5", "13=nan", "99999999999=1", "t",
    "both", "none", "{}", "[]", '{"type": "object"}', '{"enum": ["a", 1]}', '{"enum":["\\ud83d"]}', "[" * 3000, '{"a":' * 500,
    'root ::= "ok"', "root ::= (", "root ::= " + "(" * 2000, "%llguidance", "http://127.0.0.1:9/v1", "https://", "file:///etc/passwd",
    "greedy,default", "0.7/0.9", "autodeco@x", "f16", "q8_0", "official", "reward", "string\tof\twords", "\u2028", "$(id)", "'; rm -rf x",
)  # fmt: skip
CONFIGS = (
    b"", b"temp = 0.5\n", b"\xef\xbb\xbftemp = 0.5\r\n", "temp = 1".encode("utf-16"), b"temp = nan\n", b"temp = true\n", b"seed = 1.5\n",
    b"seed = 99999999999999999999\n", b"a = " + b"[" * 5000, b"stop = [['a']]\n", b"temp = {a = 1}\n", b"temp = 2020-01-01\n",
    b"\xff\xfe\xfd", b"preset = 'x'\n", b"[presets.x]\ntemp = 'warm'\n", b'system = "\\u0000"\n', b'stop = "\\ud83d"\n', b"presets = 5\n",
    b'"\\u001b[31m" = 1\n', b"words = ['hi']\n", b"temp = 1" + b"0" * 5000 + b"\n", b"a.b.c = 1\n", b"trace = '~/t.jsonl'\n",
)  # fmt: skip


def _traces() -> dict[str, bytes]:
    record = {"index": 0, "text": "a", "temperature": 0.5, "top_p": 0.9, "entropy": 1.0, "logprob": -1.0, "n_kept": 3}
    kinds = {
        "list": [1],
        "nan": float("nan"),
        "huge": 10**400,
        "text": "warm",
        "object": {},
        "true": True,
        "null": None,
    }
    traces = {
        f"{name} {kind}": json.dumps({**record, name: value}).encode()
        for name in ("temperature", "text", "n_kept")
        for kind, value in kinds.items()
    }
    traces["inf"] = json.dumps(record).replace("0.5", "1e999").encode()
    traces["half"] = json.dumps(record).replace('"a"', '"\\ud83d"').encode()
    traces["sound"] = json.dumps(record).encode() + b'\n{"done": true}\n'
    traces["done first"] = b'{"done": true}\n'
    traces["strange text"] = json.dumps({**record, "text": "$x^\\frac\x1b\u202e<script>\ud83d"}).encode()
    return traces


def _texts() -> dict[str, bytes]:
    problem = {"problem": "What is 1 + 1?", "gt": "2"}
    message = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    sound = json.dumps(problem).encode()
    return {
        "problems.jsonl": sound + b"\n",
        "problems-mark.jsonl": b"\xef\xbb\xbf" + sound + b"\r\n",
        "problems-utf16.jsonl": sound.decode().encode("utf-16"),
        "problems-half.jsonl": json.dumps({**problem, "problem": "\ud83d"}).encode(),
        "problems-array.json": b"[" + sound + b"]",
        "problems-family.jsonl": json.dumps({**problem, "family": ["make"]}).encode(),
        "problems-esc.jsonl": json.dumps({**problem, "id": "\x1b[2J", "family": "\x1b[31m"}).encode(),
        "data.jsonl": json.dumps({"prompt": "a", "completion": "b"}).encode() + b"\n",
        "chat.json": json.dumps({"messages": message}).encode(),
        "chat-half.json": json.dumps([{"role": "user", "content": "\ud83d"}]).encode(),
        "grammar.gbnf": b'\xef\xbb\xbfroot ::= "ok"\r\n',
        "schema.json": b'\xef\xbb\xbf{"enum": ["yes", "no"]}',
        "template.jinja": b"{{ messages[-1].content }}",
        "template-bad.jinja": b"{% for",
        "template-raise.jinja": b"{{ raise_exception('\x1b[2J\xe2\x80\xae') }}",
        "template-latin.jinja": b"caf\xe9",
        "deep.json": b"[" * 100_000,
        "deep-object.json": b'{"a":' * 50_000,
        "nan.json": b'{"a": NaN}',
        "empty": b"",
        "nul": bytes(64),
        "random": bytes((i * 7919 + 13) % 256 for i in range(4096)),
        "magic.gguf": b"GGUF" + bytes(20),
        "claims.gguf": b"GGUF\x03\0\0\0" + b"\xff" * 16,
        "header.safetensors": b"\xff\xff\xff\x7f\0\0\0\0{",
    }


def make(folder: Path) -> list[str]:
    """Paths of everything, as words of a command line."""
    folder.mkdir(exist_ok=True)
    letters = make_letters(folder)
    for name, data in _texts().items():
        (folder / name).write_bytes(data)
    for name, data in _traces().items():
        (folder / f"trace {name}.jsonl").write_bytes(data)
    for i, name in enumerate(NAMES):
        (folder / f"{name}.jsonl").write_bytes(list(_traces().values())[i % 3])
        (folder / f"{name}.gguf").write_bytes(letters.gguf.read_bytes()[: 100 + 4000 * i])
    _strange(folder)
    return sorted(str(path) for path in folder.iterdir()) + [str(folder / "missing.gguf"), str(folder / "no" / "where")]


def _strange(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.gguf")).write_bytes(b"GGUF")
    (folder / "folder").mkdir()
    (folder / "folder.gguf").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "link.gguf").symlink_to("letters.gguf")
