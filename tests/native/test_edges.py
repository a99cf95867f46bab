"""Corners that the random cases rarely reach: what each head is alone, the log's trimming, weights of either sign."""

from __future__ import annotations

import ctypes
import math

import llama_cpp
import numpy as np
import pytest

from autodeco_edge.engine.native import HeadsMode, Status, lib
from autodeco_edge.engine.sampler import Heads
from autodeco_edge.spec import heads as spec
from tests.native.test_corpus import FUZZ, corpus
from tests.native.test_kernels import KERNELS
from tests.native.test_oracle import c_draw, c_forward, f32, step_once

CORPUS = FUZZ / "corpus"


@pytest.mark.parametrize(
    "name,has_temp,has_top_p,n_extra,words",
    [
        ("ok-f32", True, True, 5, "temperature + top-p, enhanced, llama, 32 -> 4 -> 1, f32"),
        ("ok-q8_0", True, True, 5, "temperature + top-p, enhanced, llama, 32 -> 4 -> 1, q8_0"),
        ("ok-single-bf16", True, True, 5, "temperature + top-p, enhanced, llama, 32 -> 4 -> 1, bf16"),
        ("ok-basic", True, True, 1, "temperature + top-p, basic, llama, 32 -> 4 -> 1, f32"),
        ("ok-temperature-only", True, False, 0, "temperature only, llama, 32 -> 4 -> 1, f32"),
        ("ok-top-p-only", False, True, 5, "top-p only, enhanced, llama, 32 -> 4 -> 1, f32"),
    ],
)
def test_what_heads_say_of_themselves(name, has_temp, has_top_p, n_extra, words):
    heads = Heads(CORPUS / f"{name}.gguf")
    assert (heads.has_temp, heads.has_top_p, heads.n_extra, heads.description) == (has_temp, has_top_p, n_extra, words)
    assert (heads.n_embd, heads.n_hidden, heads.n_vocab) == (32, 4, 100)
    assert (heads.mean_temperature, heads.mean_top_p) == (0.75, pytest.approx(0.9))
    assert lib.autodeco_heads_memory(heads.handle) >= 4 * 32


@pytest.mark.parametrize("name", ["ok-temperature-only", "ok-top-p-only", "ok-basic"])
@pytest.mark.parametrize("mode", list(HeadsMode))
def test_one_head_alone_in_every_mode(name, mode):
    heads = Heads(CORPUS / f"{name}.gguf")
    hidden, logits = f32(np.linspace(-1, 1, 32)), f32(np.linspace(0, 3, 100))
    temp, top_p, _ = c_forward(heads, hidden, logits)
    status, step = step_once(heads, hidden, logits, heads_mode=mode)
    assert status == Status.OK
    evaluates_temp = heads.has_temp and mode != HeadsMode.NONE
    evaluates_top_p = heads.has_top_p and mode in (HeadsMode.BOTH, HeadsMode.TOP_P)
    assert math.isnan(step.temp) != evaluates_temp and math.isnan(step.top_p) != evaluates_top_p
    assert not evaluates_temp or abs(step.temp - temp) < 1e-5
    assert not evaluates_top_p or abs(step.top_p - top_p) < 1e-5


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("n", [3, 512, 700, 20_000])
def test_the_log_probability_of_every_kernel(kernels, n):
    rng = np.random.default_rng(n)
    logits = f32(rng.normal(size=n) * 3)
    for temp in (0.3, 1.0):
        _, step = step_once(None, None, logits, kernels=kernels.encode(), temp=temp, top_p=0.9, logprob=True)
        want = np.log(spec.softmax(logits.astype(np.float64))[step.token])
        assert step.logprob == pytest.approx(want, abs=2e-5)
    logits[n // 2] = np.inf
    _, step = step_once(None, None, logits, kernels=kernels.encode(), logprob=True)
    assert step.token == n // 2 and step.logprob == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_negative_scale_of_q8_0(tmp_path, kernels):
    """ggml's own quantiser writes none; the format allows it."""
    file = corpus.heads_file(8)
    weight = file.tensors["autodeco.temp.fc1.weight"]
    rows = [bytearray(weight.data[i : i + 34]) for i in range(0, len(weight.data), 34)]
    for row in rows[1::2]:
        row[1] ^= 0x80
    weight.data = b"".join(rows)
    (tmp_path / "heads.gguf").write_bytes(file.bytes())
    heads = Heads(tmp_path / "heads.gguf")
    hidden, logits = f32(np.linspace(-2, 3, 32)), f32(np.linspace(0, 1, 100))
    _, step = step_once(heads, hidden, logits, kernels=kernels.encode())
    temp, top_p, _ = c_forward(heads, hidden, logits)
    plain = c_forward(Heads(CORPUS / "ok-q8_0.gguf"), hidden, logits)[0]
    assert (step.temp, step.top_p) == pytest.approx((temp, top_p), abs=1e-5)
    assert abs(temp - plain) > 1e-4, "the sign matters"


@pytest.mark.parametrize("kernels", KERNELS)
def test_infinite_logits_in_several_tiles(kernels):
    """Only they count, each alike, and with a nucleus the lowest ids first."""
    logits = f32(np.zeros(3000))
    hot = [5, 511, 512, 1999, 2999]
    logits[hot] = np.inf
    tokens = set()
    for index in range(60):
        status, step = step_once(None, None, logits, kernels=kernels.encode(), index=index)
        assert (status, step.n_kept) == (Status.OK, 5)
        tokens.add(step.token)
    assert tokens == set(hot)
    _, cut = step_once(None, None, logits, kernels=kernels.encode(), top_p=0.5)
    _, kept, n = c_draw(logits, 1.0, 0.5, 0.5)
    assert cut.n_kept == n == 3 and list(np.flatnonzero(kept)) == hot[:3]
    _, greedy = step_once(None, None, logits, kernels=kernels.encode(), temp=0.0)
    assert greedy.token == 5
    many = f32(np.where(np.arange(9000) % 3 == 0, np.inf, 0.0))
    _, step = step_once(None, None, many, kernels=kernels.encode(), top_p=0.7)
    assert step.n_kept == math.ceil(np.float32(0.7) * 3000)


# ---- the log ------------------------------------------------------------------------------


def log(level: int, text: bytes) -> None:
    """A line as llama.cpp's own code logs it."""
    callback, data = ctypes.c_void_p(), ctypes.c_void_p()
    get = llama_cpp.llama_cpp._lib.llama_log_get
    get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_void_p], None
    get(ctypes.byref(callback), ctypes.byref(data))
    call = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(callback.value)
    call(level, text, data)


INFO, WARN, ERROR, CONT = 2, 3, 4, 5


def lines() -> list[bytes]:
    out, i = [], 0
    while (line := lib.autodeco_log_line(i)) is not None:
        out.append(line)
        i += 1
    return out


def test_the_log_keeps_trimmed_warnings_and_errors(capfd):
    lib.autodeco_log_clear()
    log(INFO, b"nothing\n")
    log(WARN, b" \t\r\n a warning \t\r\n")
    log(CONT, b"goes on\n")
    log(ERROR, b"\n \n")
    log(ERROR, b"")
    log(ERROR, b"x" * 2000)
    log(INFO, b"nothing")
    log(CONT, b"nothing either")
    assert lines() == [b"a warning", b"goes on", b"x" * 511]
    assert lib.autodeco_log_line(-1) is None
    for i in range(30):
        log(ERROR, b"%d" % i)
    assert lines() == [b"%d" % i for i in range(18, 30)]
    assert capfd.readouterr().err == ""
    lib.autodeco_log_set_verbose(True)
    log(INFO, b"aloud\n")
    text = "a\x1b[31m\x07\r\tb\x7f\x80\x9f\xa0\u2027\u2028\u202e\u202f\u2065\u2066\u2069\u206aé日\U0001f600\n"
    log(INFO, text.encode() + b"\xc2")  # the last one cut short
    lib.autodeco_log_set_verbose(False)
    log(INFO, b"silent\n")
    shown = {c: "".join(f"\\x{b:02x}" for b in c.encode()) for c in "\x1b\x07\r\x7f\x80\x9f\u2028\u202e\u2066\u2069"}
    assert capfd.readouterr().err.startswith("aloud\n" + text.translate(str.maketrans(shown)))
    lib.autodeco_log_clear()
    assert lines() == []
