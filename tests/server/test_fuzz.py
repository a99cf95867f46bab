"""Requests without sense: never a 5xx, never no answer, and the server serves on. The long run: campaign.py fuzz."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http_fuzz import Fuzzer, bent, request
from tests.support.serving import ask, serving

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def bounded():
    """A reply of whatever length is asked for ends after four tokens."""
    with serving("--parallel", "4", "--max-tokens", "4", "-c", "512") as served:
        yield served
        assert served.process.poll() is None, served.log


@pytest.mark.parametrize("seed", [1, 2])
def test_changed_requests(bounded, seed):
    fuzzer = Fuzzer(bounded.url, seed)
    fuzzer.run(400)
    assert fuzzer.failures == []
    assert fuzzer.statuses.get(200, 0) > 10 and fuzzer.statuses.get(400, 0) > 100, fuzzer.statuses
    assert bounded.post("/v1/chat/completions", ask()).status_code == 200


@pytest.mark.parametrize("schema", [{"const": -(2**63)}, {"enum": [1, -(2**63)]}, {"const": [{"a": -(2**63)}]}])
def test_a_number_that_ended_the_process(bounded, schema):
    """Found by the fuzzer: llguidance turns the sign of the smallest 64-bit integer round without end."""
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    answer = bounded.post("/v1/chat/completions", ask(response_format=form))
    assert answer.status_code == 400 and "enum" in answer.text or "const" in answer.text


def test_the_fuzzer_changes_something():
    import random

    rng = random.Random(1)
    assert len({request(rng)[2] for _ in range(200)}) > 190
    assert len({bent(b'{"messages": []}', rng) for _ in range(200)}) > 150


def test_what_the_document_allows(bounded, tmp_path):
    """schemathesis makes requests from the document, right ones and wrong ones."""
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed")
    document = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", bounded.url, "--max-examples", "8", "--seed", "1",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance", "--phases", "fuzzing",
        "--request-timeout", "60", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
