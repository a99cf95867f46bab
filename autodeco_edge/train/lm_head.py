"""The LM head of a GGUF, in PyTorch: hidden states to the logits that llama.cpp would give.

Owns the output matrix (found, dequantised, kept in float32) and what an architecture does to
the logits behind it: a bias, a scale, a soft cap. Whether that is all is not taken on trust: ``fit``
compares with llama.cpp's own logits and refuses what differs. Knows nothing of contexts,
tokens or training.

    l = cap * tanh((s * (W h + b)) / cap)        W [V, H], s and cap where the metadata has them

Evaluated here and not by llama.cpp, because hidden states are kept from one epoch to the next
and logits, a hundred times larger, are not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import FormatError, MismatchError
from ..gguf import types as gt
from ..gguf.reader import GGUFFile

MATRICES = ("output.weight", "token_embd.weight")  # the second where the two are tied
BIAS = "output.bias"
ROWS = 4096  # dequantised at a time

# Median over positions of |l - l'| / std(l). llama.cpp rounds the hidden state to the type that its
# product wants: 11 or 8 bits for F16 and BF16 matrices, 8 bits with one scale per 32 or 256
# entries for quantised ones (measured 0.6 to 0.8 %; more where a few entries are very large).
TOLERANCE_FLOAT, TOLERANCE_QUANTISED = 0.01, 0.05
FLOATS = ("F32", "F16", "BF16")


class LmHead:
    """
    file   an open GGUF of architecture ``arch``; read by ``load``

    Raises FormatError where there is no output matrix.
    """

    def __init__(self, file: GGUFFile, arch: str) -> None:
        name = next((name for name in MATRICES if name in file.tensors), None)
        if name is None or len(file.tensors[name].shape) != 2:
            raise FormatError(
                f"{file.path}: no output matrix (expected {' or '.join(MATRICES)} of two dimensions); "
                "is this a whole language model?"
            )
        self.file, self.name = file, name
        self.n_embd, self.n_vocab = file.tensors[name].shape
        self.scale = 1.0
        self._metadata_scale = file.f32(f"{arch}.logit_scale") or 1.0
        self.cap = file.f32(f"{arch}.final_logit_softcapping") or 0.0

    @property
    def type_name(self) -> str:
        """Tensor type of the output matrix, such as Q6_K."""
        return gt.type_name(self.file.tensors[self.name].ggml_type)

    def load(self, device: torch.device) -> None:
        """Dequantise the matrix to float32 [V, H]."""
        self.weight = _dequantised(self.file, self.name).to(device)
        self.bias = _dequantised(self.file, BIAS).to(device) if BIAS in self.file.tensors else None  # [V]

    def __call__(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., V], float32."""
        logits = F.linear(hidden.to(self.weight.dtype), self.weight, self.bias) * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    def fit(self, hidden: Tensor, expected: Tensor) -> None:
        """Find the scale's direction, and see that hidden [n, H] gives llama.cpp's logits ``expected`` [n, V].

        Some architectures multiply by their logit_scale and others divide; the key does not say.
        Raises MismatchError when neither gives ``expected``.
        """
        errors = {s: self._error(s, hidden, expected) for s in (1.0, self._metadata_scale, 1.0 / self._metadata_scale)}
        self.scale = min(errors, key=errors.get)
        tolerance = TOLERANCE_FLOAT if self.type_name in FLOATS else TOLERANCE_QUANTISED
        if not errors[self.scale] <= tolerance:  # NaN is refused too
            raise MismatchError(
                f"{self.file.path}: logits from {self.name} ({self.type_name}) differ from llama.cpp's by "
                f"{errors[self.scale]:.1%} of their spread, allowed {tolerance:.0%}: this architecture does something "
                "to its logits that is not in the metadata; train on its Hugging Face model with --base"
            )

    def _error(self, scale: float, hidden: Tensor, expected: Tensor) -> float:
        self.scale = scale
        off = (self(hidden) - expected).square().mean(-1).sqrt() / expected.std(-1)  # [n]
        return off.median().item()


def _dequantised(file: GGUFFile, name: str) -> Tensor:
    """A tensor in float32, rows first; some thousand rows at a time, so that the peak is the result."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    tensor = file.tensors[name]
    shape = tensor.shape[::-1]
    n_rows = shape[0] if len(shape) == 2 else 1
    row = tensor.nbytes // n_rows
    out = np.empty((n_rows, tensor.shape[0]), np.float32)
    for start in range(0, n_rows, ROWS):
        n = min(ROWS, n_rows - start)
        raw = np.frombuffer(file.read_tensor(name, start * row, n * row), np.uint8)
        try:
            out[start : start + n] = dequantize(raw.reshape(n, row), GGMLQuantizationType(tensor.ggml_type))
        except (NotImplementedError, ValueError) as error:
            kind = gt.type_name(tensor.ggml_type)
            raise FormatError(
                f"{file.path}: {name} is of type {kind}, which cannot be read here ({error}); "
                "quantise with another type for the output matrix (llama-quantize --output-tensor-type q8_0)"
            ) from error
    return torch.from_numpy(out.reshape(shape))
