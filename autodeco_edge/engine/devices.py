"""What llama.cpp computes on: the devices of this machine, and those that workers elsewhere lend.

Owns ggml's list of devices and its remote calls (RPC). Knows nothing of models. The remote calls are neither encrypted
nor authenticated, and llama.cpp ends the process when a worker goes away: for networks that one trusts
(docs/workers.md).
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import llama_cpp
from llama_cpp._ggml import libggml

from ..errors import AutodecoError, MissingInputError, UsageError
from .cpu import fate_in_child

_CONNECT_SECONDS = 5.0
MAX_WORKERS = 16  # GGML_RPC_MAX_SERVERS
_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_POINTER = ctypes.c_void_p


@lru_cache(maxsize=1)
def _ggml() -> Any:
    """The functions used here, with their types."""
    types: dict[str, tuple[Any, list[Any]]] = {
        "ggml_backend_dev_count": (ctypes.c_size_t, []),
        "ggml_backend_dev_get": (_POINTER, [ctypes.c_size_t]),
        "ggml_backend_dev_by_type": (_POINTER, [ctypes.c_int]),
        "ggml_backend_dev_name": (ctypes.c_char_p, [_POINTER]),
        "ggml_backend_dev_description": (ctypes.c_char_p, [_POINTER]),
        "ggml_backend_dev_buffer_type": (_POINTER, [_POINTER]),
        "ggml_backend_register": (None, [_POINTER]),
        "ggml_backend_reg_by_name": (_POINTER, [ctypes.c_char_p]),
        "ggml_backend_reg_get_proc_address": (_POINTER, [_POINTER, ctypes.c_char_p]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(libggml, name)
        function.restype, function.argtypes = result, arguments
    return libggml


def devices() -> list[str]:
    """Name and description of each, in llama.cpp's words."""
    ggml = _ggml()
    found = [ggml.ggml_backend_dev_get(i) for i in range(ggml.ggml_backend_dev_count())]
    return [
        f"{ggml.ggml_backend_dev_name(d).decode()} ({ggml.ggml_backend_dev_description(d).decode()})" for d in found
    ]


def device_of(n_gpu_layers: int, workers: Sequence[str] = ()) -> str:
    """Where a model's layers are, for people: "CPU", "CUDA0 (all layers)", "2 workers"."""
    if workers:
        return f"{len(workers)} worker{'s' if len(workers) > 1 else ''}"
    if n_gpu_layers == 0 or not llama_cpp.llama_supports_gpu_offload():
        return "CPU"
    names = [name for device in devices() if (name := device.partition(" ")[0]) not in ("CPU", "BLAS")]
    return f"{'+'.join(names) or 'GPU'} ({'all' if n_gpu_layers < 0 else n_gpu_layers} layers)"


def cpu_buffer_type() -> int:
    """Pointer to ggml's plain memory of this machine."""
    ggml = _ggml()
    return ggml.ggml_backend_dev_buffer_type(ggml.ggml_backend_dev_by_type(_CPU))


# ---- workers --------------------------------------------------------------------------------------


def endpoints_of(text: str) -> list[str]:
    """Of "host:port,host:port". Raises UsageError."""
    endpoints = [one.strip() for one in text.split(",")]
    for one in endpoints:
        host, _, port = one.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535 or not one.isascii():
            raise UsageError(f"--rpc: allowed host:port, several with commas between; got '{one}'")
    if len(endpoints) > MAX_WORKERS:
        raise UsageError(f"--rpc: allowed 1 to {MAX_WORKERS} workers; got {len(endpoints)}")
    return endpoints


def add_workers(endpoints: Sequence[str]) -> None:
    """What these workers lend counts among this process's devices from now on, once each.

    Raises UsageError for a llama.cpp that was built without remote calls, MissingInputError where nobody answers, or
    somebody who is no worker of this version.
    """
    add = _remote("ggml_backend_rpc_add_server", _POINTER, ctypes.c_char_p)
    for endpoint in endpoints:
        if endpoint not in _added:
            _greet(endpoint)
            _ggml().ggml_backend_register(add(endpoint.encode()))
            _added.add(endpoint)


_added: set[str] = set()


def lender(endpoint: str, n_threads: int) -> Callable[[], None]:
    """Computes for whoever connects, one at a time, on this machine's CPU; returns only where it cannot listen.

    Raises UsageError for a llama.cpp that was built without remote calls.
    """
    size = ctypes.c_size_t
    start = _remote("ggml_backend_rpc_start_server", None, ctypes.c_char_p, ctypes.c_char_p, size, size, _POINTER)
    device = (_POINTER * 1)(_ggml().ggml_backend_dev_by_type(_CPU))
    return lambda: start(endpoint.encode(), None, n_threads, 1, ctypes.addressof(device))


def _remote(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of ggml's RPC backend."""
    ggml = _ggml()
    registry = ggml.ggml_backend_reg_by_name(b"RPC")
    address = registry and ggml.ggml_backend_reg_get_proc_address(registry, name.encode())
    if not address:
        raise UsageError(
            "this llama.cpp was built without remote calls; see docs/workers.md: CMAKE_ARGS=-DGGML_RPC=ON pip install "
            "--force-reinstall --no-binary llama-cpp-python llama-cpp-python"
        )
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def _greet(endpoint: str) -> None:
    """A child does it first: llama.cpp ends the process of whoever meets somebody that is no worker."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise MissingInputError(
            f"--rpc {endpoint}: nobody answers ({reason}); start `autodeco-edge rpc-worker` there"
        ) from None
    if fate_in_child(f"from autodeco_edge.engine import devices; devices.greet_or_die({endpoint!r})") != "ok":
        raise MissingInputError(
            f"--rpc {endpoint}: is no worker of this version, or serves somebody else at the moment; "
            "start `autodeco-edge rpc-worker` there, one for each that uses it"
        )


def greet_or_die(endpoint: str) -> None:
    """For the child of ``_greet``."""
    if not _remote("ggml_backend_rpc_add_server", _POINTER, ctypes.c_char_p)(endpoint.encode()):
        raise AutodecoError(f"{endpoint}: lends nothing")
