"""Turns token ids into Steps: the native library, models, heads and samplers, contexts, and the Llama drop-in. Knows no text."""
