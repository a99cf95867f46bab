"""What the native library refuses, each with its own message."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest

from autodeco_edge.engine import library as _lib
from autodeco_edge.engine.native import Status, lib
from autodeco_edge.engine.sampler import Heads
from tests.support import checkpoints


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Heads:
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads

    folder = checkpoints.random_heads(tmp_path_factory.mktemp("h") / "c", 64, seed=1)
    (folder / "config.json").write_text('{"base_model_type": "llama", "hidden_size": 64}')
    write_heads(read_checkpoint(folder), folder / "heads.gguf")
    return Heads(folder / "heads.gguf")


# ---- another llama.cpp ------------------------------------------------------------------


def test_another_llama_cpp_version_is_refused(tmp_path):
    """A copy of the library that believes it was compiled against another llama.cpp."""
    version = lib.autodeco_llama_version()
    data = Path(_lib.library()._name).read_bytes()
    assert version in data
    copy = tmp_path / Path(_lib.library()._name).name
    copy.write_bytes(data.replace(version + b"\0", b"9" * len(version) + b"\0"))
    code = (
        "import llama_cpp\n"  # libllama is in the process before the copy, whose rpath leads nowhere
        "from autodeco_edge.cli import main\n"
        "import sys; sys.argv = ['autodeco-edge', 'run', 'hi', '-m', 'demo']; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "AUTODECO_LIBRARY": str(copy)},
    )
    assert done.returncode == 1
    assert "9" * len(version) in done.stderr and version.decode() in done.stderr
    assert len(done.stderr.splitlines()) == 1


# ---- graphs -----------------------------------------------------------------------------


class InitParams(ctypes.Structure):
    """struct ggml_init_params"""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Graph:
    """A bare ggml graph with a logits matrix, and `result_norm` of a given width if any."""

    def __init__(self, n_embd: int | None, n_vocab: int = 32) -> None:
        self.ggml = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
        for name in ("ggml_init", "ggml_new_tensor_2d", "ggml_view_1d", "ggml_new_graph", "ggml_scale"):
            getattr(self.ggml, name).restype = ctypes.c_void_p
        self.ggml.ggml_init.argtypes = [InitParams]
        self.ctx = ctypes.c_void_p(self.ggml.ggml_init(InitParams(1 << 22, None, True)))
        self.graph = ctypes.c_void_p(self.ggml.ggml_new_graph(self.ctx))
        matrix = self._matrix(n_vocab)
        self.logits = self.ggml.ggml_view_1d(self.ctx, matrix, ctypes.c_int64(n_vocab), ctypes.c_size_t(0))
        if n_embd is not None:
            norm = ctypes.c_void_p(self.ggml.ggml_scale(self.ctx, self._matrix(n_embd), ctypes.c_float(1.0)))
            self.ggml.ggml_set_name(norm, b"result_norm")
            self.ggml.ggml_build_forward_expand(self.graph, norm)

    def _matrix(self, width: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(
            self.ggml.ggml_new_tensor_2d(self.ctx, ctypes.c_int(0), ctypes.c_int64(width), ctypes.c_int64(1))
        )

    def apply(self, smpl, *, init: bool = True, n_outputs: int = 1) -> llama_cpp.llama_sampler_data:
        data = llama_cpp.llama_sampler_data()
        data.logits = self.logits
        interface = smpl.contents.iface.contents
        if init:
            interface.backend_init(smpl, None, n_outputs)
            interface.backend_reset(smpl)
        interface.backend_apply(smpl, self.ctx, self.graph, ctypes.byref(data))
        return data


def make_sampler(heads: Heads | None):
    smpl = lib.autodeco_sampler_init(heads.handle if heads else None, lib.autodeco_sampler_default_params())
    return ctypes.cast(smpl, llama_cpp.llama_sampler_p_ctypes)


def as_handle(smpl) -> ctypes.c_void_p:
    return ctypes.cast(smpl, ctypes.c_void_p)


def status_of(smpl) -> tuple[int, str]:
    err = ctypes.create_string_buffer(256)
    return lib.autodeco_sampler_status(as_handle(smpl), err, len(err)), err.value.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="the bare graph is built through libggml-base.so")
@pytest.mark.parametrize("n_embd", [None, 63])
def test_a_graph_without_a_usable_result_norm_is_refused(heads, n_embd):
    smpl = make_sampler(heads)
    data = Graph(n_embd).apply(smpl)
    status, message = status_of(smpl)
    assert status == Status.NO_NORM
    assert "result_norm" in message and "64" in message
    assert not data.sampled
    llama_cpp.llama_sampler_free(smpl)


@pytest.mark.skipif(sys.platform != "linux", reason="the bare graph is built through libggml-base.so")
@pytest.mark.parametrize("with_heads", [True, False])
def test_a_graph_with_result_norm_is_accepted(heads, with_heads):
    smpl = make_sampler(heads if with_heads else None)
    data = Graph(64).apply(smpl)
    assert status_of(smpl)[0] == Status.OK
    assert data.sampled
    llama_cpp.llama_sampler_free(smpl)


# ---- not attached -----------------------------------------------------------------------


def test_sampling_without_a_graph_is_reported_and_does_not_abort(heads):
    smpl = make_sampler(heads)
    candidates = (llama_cpp.llama_token_data * 3)(*[(i, float(i), 0.0) for i in range(3)])
    array = llama_cpp.llama_token_data_array(candidates, 3, -1, False)
    llama_cpp.llama_sampler_apply(smpl, ctypes.byref(array))
    assert 0 <= array.selected < 3
    assert status_of(smpl)[0] == Status.NOT_ATTACHED
    llama_cpp.llama_sampler_reset(smpl)
    assert status_of(smpl)[0] == Status.OK
    llama_cpp.llama_sampler_free(smpl)


# ---- files ------------------------------------------------------------------------------


def load(path: Path) -> tuple[int, str]:
    handle, err = ctypes.c_void_p(), ctypes.create_string_buffer(512)
    status = lib.autodeco_heads_load_from_file(str(path).encode(), ctypes.byref(handle), err, len(err))
    lib.autodeco_heads_free(handle)
    return status, err.value.decode()


def test_a_heads_file_cut_at_any_point_is_refused(heads, tmp_path):
    data = heads.path.read_bytes()
    cuts = [*range(0, 2000, 7), *range(2000, len(data) - 32, 4099)]
    for n in cuts:
        path = tmp_path / "cut.gguf"
        path.write_bytes(data[:n])
        status, message = load(path)
        assert status == Status.FORMAT, f"{n} bytes: {status} {message}"
        assert str(path) in message


@pytest.mark.parametrize(
    "old,new,word",
    [
        (b"autodeco.format_version", b"autodeco.format_versiom", "holds"),
        (b"autodeco.embedding_length", b"autodeco.embedding_lengtg", "embedding_length"),
        (b"autodeco.hidden_length", b"autodeco.hidden_lengtg", "hidden_length"),
        (b"autodeco.temperature.scale", b"autodeco.temperature.scald", "scale"),
        (b"autodeco.top_p.features", b"autodeco.top_p.featureq", "features"),
        (b"max_prob", b"min_prob", "min_prob"),
        (b"autodeco.temp.fc2.bias", b"autodeco.temp.fc2.biat", "fc2.bias"),
        (b"autodeco.top_p.fc1_extra.weight", b"autodeco.top_p.fc1_extra.weighs", "fc1_extra"),
    ],
)
def test_a_damaged_key_is_named(heads, tmp_path, old, new, word):
    data = heads.path.read_bytes()
    assert data.count(old) == 1
    path = tmp_path / "bad.gguf"
    path.write_bytes(data.replace(old, new))
    status, message = load(path)
    assert status == Status.FORMAT
    if word != "holds":
        assert word in message


def test_missing_file_and_file_without_heads(tmp_path):
    assert load(tmp_path / "none.gguf")[0] == Status.NOT_FOUND
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "plain.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert load(tmp_path / "plain.gguf")[0] == Status.NO_HEADS
