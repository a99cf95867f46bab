"""A few of the kills and races of tests/support/campaign.py on each command that writes records."""

from __future__ import annotations

import importlib.util

import pytest

from tests.support import campaign

NAMES = ("collect", "eval", "train")


def kind(name: str) -> campaign.Kind:
    if name == "train" and not all(map(importlib.util.find_spec, ("torch", "transformers", "accelerate"))):
        pytest.skip("train needs torch, transformers and accelerate")
    return campaign.kinds()[name]


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_leaves_what_an_undisturbed_run_does(name, tmp_path):
    found = campaign.kills(kind(name), 3, tmp_path, seed=1)
    assert found["kills"] == 3 and found["equal"] == found["runs"]


@pytest.mark.parametrize("name", NAMES)
def test_of_two_runs_on_one_output_one_is_turned_away(name, tmp_path):
    found = campaign.races(kind(name), 2, tmp_path, seed=1)
    assert found["equal"] == found["races"] == 2
