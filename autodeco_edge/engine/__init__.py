"""Turns token ids into Steps: the native library, models, heads, samplers and contexts. Knows no text."""

from .waiting import apply as _set_how_threads_wait

_set_how_threads_wait()  # before any module here imports llama_cpp, whose OpenMP reads it once
