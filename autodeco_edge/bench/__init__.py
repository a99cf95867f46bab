"""Benchmarks of AutoDeco against stock llama.cpp, in one process, in turn.

Nothing is imported by this file; import the module you need:

    step     one sampling step on given logits        machine  what the figures were taken on
    decode   llama.cpp's loop on a model, and ours    stats    medians, ranges, ratios
    heads    random heads of a given T and P          _native  ctypes bindings of native/bench
"""
