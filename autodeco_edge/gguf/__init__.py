"""GGUF files read with bounds: types, the keys of docs/format.md, and a reader that trusts nothing."""
