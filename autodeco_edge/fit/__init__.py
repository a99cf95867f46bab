"""Heads for any GGUF in one command: drawn, trained, compared with constants, written.

    fit(FitConfig(...))   -> report; writes MODEL-autodeco.gguf

Owns the order of the work, the time that each part has, and the verdict. Each part is another room's: replies are
collected by `collect`, heads trained by `train`, both measured by `eval`.
"""
