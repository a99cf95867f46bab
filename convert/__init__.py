"""Conversion of AutoDeco checkpoints into GGUF: read, write, merge, verify. Never imports torch."""
