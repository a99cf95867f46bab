"""The recipe that makes the demo model: text, tokenizer, base, samples, GGUF. Nothing in the package imports it."""
