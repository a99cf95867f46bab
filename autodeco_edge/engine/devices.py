"""What llama.cpp can compute on.

Owns ggml's list of devices, and which of them a number of layers goes to. Loads no model.
"""

from __future__ import annotations

import ctypes

import llama_cpp


def devices() -> list[tuple[str, str]]:
    """(name, description) of each, in llama.cpp's own words: ("CPU", "the processor's name")."""
    from llama_cpp._ggml import libggml

    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for function in (libggml.ggml_backend_dev_name, libggml.ggml_backend_dev_description):
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    found = [libggml.ggml_backend_dev_get(i) for i in range(libggml.ggml_backend_dev_count())]
    return [
        (libggml.ggml_backend_dev_name(d).decode(), libggml.ggml_backend_dev_description(d).decode()) for d in found
    ]


def device_of(n_gpu_layers: int) -> str:
    """Name of the device, for people: "CPU", or "CUDA0 (all layers)", "CUDA0 (20 layers)"."""
    if n_gpu_layers == 0 or not llama_cpp.llama_supports_gpu_offload():
        return "CPU"
    names = "+".join(name for name, _ in devices() if name not in ("CPU", "BLAS")) or "GPU"
    return f"{names} ({'all' if n_gpu_layers < 0 else n_gpu_layers} layers)"
