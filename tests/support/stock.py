"""llama-cpp-python's own Llama and llama.cpp's own loader, opened so that they survive here.

Owns the one difference to a user's ``llama_cpp.Llama(...)``: where AMX is advertised and traps, the repacked
weights are off. Whatever in tests, demo and bench opens a model without autodeco_edge comes here.
"""

from __future__ import annotations

import os

import llama_cpp

from autodeco_edge.engine.cpu import extra_buffers_safe


class StockLlama(llama_cpp.Llama):
    """llama_cpp.Llama, whose constructor has no parameter for this: it sees the struct on the way in."""

    @property
    def model_params(self):
        return self._model_params

    @model_params.setter
    def model_params(self, params) -> None:
        params.use_extra_bufts = extra_buffers_safe()
        self._model_params = params


def open_stock(path: str | os.PathLike[str], **options) -> StockLlama:
    """As ``llama_cpp.Llama(path, **options)``, quiet and with one thread unless asked otherwise."""
    return StockLlama(os.fspath(path), **{"verbose": False, "n_threads": 1, "n_threads_batch": 1, **options})
