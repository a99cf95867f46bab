"""The golden values, made again from the equations without the package."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("golden") / "make_golden.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_golden", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_golden_values_are_those_of_the_equations(script, golden):
    assert script.differences(script.make(), golden) == []


@pytest.mark.parametrize("key", ["hf_top_p", "nemo_easy_dropped"])
def test_a_changed_value_is_noticed(script, golden, key):
    changed = copy.deepcopy(golden)
    changed[key]["dT"][1] += 1e-11
    assert len(script.differences(script.make(), changed)) == 1


def test_script_knows_nothing_of_the_package():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert not [
        line for line in lines if line.startswith(("import autodeco", "from autodeco", "from .", "import torch"))
    ]
