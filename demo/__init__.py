"""The recipe that makes the demo model: tokenizer, base, samples, GGUF. Nothing in the package imports it; its text comes from `autodeco_edge.tasks.demo`."""
