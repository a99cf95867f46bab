"""The forecast before a model is loaded, and what is done with it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from autodeco_edge.engine import cpu, memory
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import OutOfMemoryError
from tests.support.letters import N_EMBD, make_letters, write_model


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def test_forecast_of_known_numbers(letters):
    """One layer of two heads of 16: key and value of 32 in F16."""
    estimate = memory.forecast(letters.gguf)
    assert estimate.weights == letters.gguf.stat().st_size
    assert estimate.cache_per_token == 1 * (N_EMBD + N_EMBD) * 2
    assert estimate.n_ctx_train == 512
    assert estimate.total(1000) == estimate.weights + 1000 * estimate.cache_per_token + estimate.compute
    assert memory.forecast(letters.gguf, gpu_share=1.0).total(1000) == estimate.compute


def test_forecast_is_what_llama_cpp_takes():
    """The cache that llama.cpp reports for the demo model, in its log."""
    code = (
        "from autodeco_edge.engine.library import log; log.set_verbose(True)\n"
        "from autodeco_edge.engine.engine import Engine; from autodeco_edge.engine.pairing import demo_model; Engine(demo_model(), n_ctx=1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (reported,) = re.findall(r"size = *([0-9.]+) MiB \( *1024 cells", done.stderr)
    forecast = memory.forecast(demo_model()).cache_per_token * 1024 / 2**20
    assert forecast == pytest.approx(float(reported), abs=0.01)  # printed with two digits


def test_heads_given_for_each_layer(tmp_path, letters):
    def as_array(writer) -> None:
        del writer.kv_data[0]["llama.attention.head_count_kv"]
        writer.add_array("llama.attention.head_count_kv", [2])

    path = write_model(tmp_path / "m.gguf", keys=as_array)
    assert memory.forecast(path).cache_per_token == memory.forecast(letters.gguf).cache_per_token


@pytest.mark.parametrize(
    "key, add",
    [
        ("block_count", lambda w, key: w.add_uint32(key, 4_000_000_000)),
        ("embedding_length", lambda w, key: w.add_uint32(key, 4_000_000_000)),
        ("attention.head_count", lambda w, key: w.add_uint32(key, 0)),
        ("attention.head_count_kv", lambda w, key: w.add_int32(key, -7)),
        ("feed_forward_length", lambda w, key: w.add_array(key, [2**31 - 1])),
        ("attention.key_length", lambda w, key: w.add_uint64(key, 2**63)),
        ("attention.value_length", lambda w, key: w.add_string(key, "wide")),
    ],
)
def test_no_forecast_from_damaged_numbers(tmp_path, key, add):
    """A file of kilobytes that claims terabytes is for the loader to refuse as damaged, not for want of memory."""

    def damage(writer) -> None:
        writer.kv_data[0].pop(f"llama.{key}", None)
        add(writer, f"llama.{key}")

    path = write_model(tmp_path / "m.gguf", keys=damage)
    assert memory.forecast(path) is None
    assert memory.fit_context(path, 4096, 4096) == (4096, None)


@pytest.mark.parametrize("values", [[2], [-1], [2.0], ["two"]], ids=str)
def test_heads_as_arrays_of_any_type(tmp_path, values):
    def as_array(writer) -> None:
        del writer.kv_data[0]["llama.attention.head_count_kv"]
        writer.add_array("llama.attention.head_count_kv", values)

    assert memory.forecast(write_model(tmp_path / "m.gguf", keys=as_array)).cache_per_token == (N_EMBD + N_EMBD) * 2


def test_no_forecast_of_what_is_no_model(tmp_path):
    (tmp_path / "text.gguf").write_text("no model")
    assert memory.forecast(tmp_path / "text.gguf") is None
    assert memory.forecast(tmp_path / "nowhere.gguf") is None


def test_context_is_fitted_or_refused_with_numbers(letters, monkeypatch):
    estimate = memory.forecast(letters.gguf)
    free = {"bytes": 10 * estimate.total(4096)}
    monkeypatch.setattr(memory, "free_memory", lambda: free["bytes"])
    assert memory.fit_context(letters.gguf, 0, 4096) == (0, None)
    assert memory.fit_context(letters.gguf, 4096, 4096) == (4096, None)
    monkeypatch.setattr(memory, "SMALLEST_CONTEXT", 256)
    free["bytes"] = int(estimate.total(300) / 0.95) + 100
    n_ctx, remark = memory.fit_context(letters.gguf, 0, 4096)
    assert n_ctx == 256 and remark.startswith("context of 256 tokens instead of 512")
    with pytest.raises(OutOfMemoryError, match="needs .* for a context of 4096 tokens .*weights .*cache .*pass -c 256"):
        memory.fit_context(letters.gguf, 4096, 4096)
    free["bytes"] = 1000
    with pytest.raises(OutOfMemoryError, match="use a smaller quantisation"):
        memory.fit_context(letters.gguf, 0, 4096)
    free["bytes"] = None
    assert memory.fit_context(letters.gguf, 0, 4096) == (0, None)


def test_a_draft_model_counts_beside_its_target(letters, monkeypatch):
    estimate = memory.forecast(letters.gguf)
    both = estimate + estimate
    assert both.total(700) == 2 * estimate.total(700) and both.n_ctx_train == estimate.n_ctx_train
    monkeypatch.setattr(memory, "free_memory", lambda: int(1.5 * estimate.total(4096) / 0.95))
    assert memory.fit_context(letters.gguf, 4096, 4096) == (4096, None)
    with pytest.raises(
        OutOfMemoryError, match=r"letters.gguf with its draft model needs .* for a context of 4096 tokens"
    ):
        memory.fit_context(letters.gguf, 4096, 4096, draft=estimate)
    assert memory.fit_context(letters.gguf, 4096, 4096, draft=None) == (4096, None)


def test_free_memory_of_machine_and_control_group(tmp_path):
    assert memory.free_memory() > 2**26
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    7 kB\n")
    assert memory._linux_available(tmp_path / "meminfo") == 7 * 1024
    for name, text in {"max": "1000", "current": "700", "stat": "anon 1\ninactive_file 150\nactive_file 50\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory._cgroup_left(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_left(tmp_path) is None


def devices(folder, cpus: int, capacity=None, p_cores: str | None = None):
    """A /sys/devices of so many single-thread cores."""
    for i in range(cpus):
        topology = folder / f"system/cpu/cpu{i}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0")
        (topology / "core_id").write_text(str(i))
        if capacity:
            (topology.parent / "cpu_capacity").write_text(str(capacity[i]))
    if p_cores:
        (folder / "cpu_core").mkdir()
        (folder / "cpu_core/cpus").write_text(p_cores)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /sys")
@pytest.mark.parametrize(
    "kind, expected",
    [({}, 8), ({"p_cores": "0-1,4"}, 3), ({"capacity": [1024, 900, 900, 900, 400, 400, 400, 400]}, 4)],
)
def test_threads_are_performance_cores(tmp_path, monkeypatch, kind, expected):
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(8)))
    assert cpu.physical_cores(devices(tmp_path, 8, **kind)) == expected
