"""`autodeco-edge rpc-worker`: lend this machine's processor to a model that runs elsewhere.

Owns the command's options and its end. The computing is llama.cpp's (engine/devices.py).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import Annotated

import typer

from ..errors import AutodecoError, UsageError, check_range
from ..io.printing import say

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def rpc_worker(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port.")] = 50052,
    threads: Annotated[int, typer.Option("-t", "--threads", help="Threads; 0 = one a physical performance core.")] = 0,
    trusted_network: Annotated[
        bool, typer.Option("--trusted-network", help="Listen beyond this machine: whoever reaches the port may use it.")
    ] = False,
) -> None:
    """Lend this processor to a model on another machine (run --rpc, serve --rpc).

    Neither encrypted nor authenticated: on a network that you trust (docs/workers.md). Ctrl-C ends it.

    Example: autodeco-edge rpc-worker --port 50052
    """
    from ..engine.cpu import physical_cores
    from ..engine.devices import lender

    check_range("--port", port, 1, 65535)
    check_range("-t", threads, 0, 512, "0 = one a physical performance core")
    if host not in LOOPBACK and not trusted_network:
        raise UsageError(
            f"--host {host}: whoever reaches this address may use the worker; if so be it, add --trusted-network"
        )
    _check_free(host, port)
    lend = lender(f"{host}:{port}", threads or physical_cores())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.dup2(2, 1)  # llama.cpp prints its progress
    say(f"listening on {host}:{port}")
    worker = threading.Thread(target=lend, daemon=True)
    worker.start()
    worker.join()
    raise AutodecoError(f"the worker on {host}:{port} ended; the lines above say why")


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); choose others"
        ) from None
