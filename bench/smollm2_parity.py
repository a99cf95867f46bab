"""T and P of the runtime on the real model against float64 PyTorch on the very weights: `python bench/smollm2_parity.py`.

Another GGUF with --model, its heads with --heads. One reply is drawn from it, with the heads of the package where it is SmolLM2. transformers reads the same GGUF, dequantised, and runs
the same tokens in float64; the numpy specification gives T and P of its hidden states and logits. What differs is the
arithmetic of llama.cpp: with the quantised file activations are rounded to 8 bits, with the F32 file made of it not.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

PROMPT = "<|im_start|>user\nTell me about the sea<|im_end|>\n<|im_start|>assistant\n"


def to_type(source: Path, target: Path, n_threads: int, type_: str = "ALL_F32") -> None:
    """The same weights, dequantised by llama.cpp, or in another of its types (of LLAMA_FTYPE_...)."""
    import llama_cpp

    from autodeco_edge.engine import library

    library.library()  # takes over llama.cpp's log
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{type_}")
    params.nthread, params.allow_requantize = n_threads, True
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise SystemExit(f"{source}: llama.cpp could not make {type_} of it")


def replies(model: Path, heads: Path, n: int, n_threads: int, given: list[int] | None = None, text: str = PROMPT):
    """(prompt, tokens, T and P [n, 2]) of one reply; ``given``: tokens that are fed instead of those drawn."""
    from autodeco_edge import Engine, SamplingParams

    with Engine(model, heads, n_ctx=512, n_threads=n_threads) as engine:
        prompt = engine.model.tokenize(text)
        if given is None:
            steps = list(engine.generate(prompt, SamplingParams(seed=1), max_tokens=n, stop_at_end=False))
            return prompt, [s.id for s in steps], np.array([(s.temperature, s.top_p) for s in steps])
        found = []
        for i in range(len(given)):  # the cache keeps all but the last token, so this costs a token a step
            (step,) = engine.generate([*prompt, *given[:i]], SamplingParams(seed=1), max_tokens=1, stop_at_end=False)
            found.append((step.temperature, step.top_p))
        return prompt, given, np.array(found)


def reference(model: Path, heads: Path, prompt: list[int], tokens: list[int]) -> np.ndarray:
    """T and P [n, 2] before each token: float64 from the first layer to the heads."""
    import torch
    from transformers import AutoModelForCausalLM

    from autodeco_edge.convert.verify import read_heads_gguf
    from autodeco_edge.spec.heads import forward
    from tests.support.weights import weights_of

    net = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32).double().eval()
    with torch.no_grad():
        hidden = net.model(torch.tensor([[*prompt, *tokens]])).last_hidden_state[0, len(prompt) - 1 : -1]
        logits = net.lm_head(hidden).numpy()
    weights = weights_of(read_heads_gguf(heads))
    return np.array([forward(weights, h, row)[:2] for h, row in zip(hidden.numpy(), logits, strict=True)])


def differences(ours: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    gap = np.abs(ours - exact)
    return {
        f"{of}_{name}": float(value)
        for column, of in ((0, "dT"), (1, "dP"))
        for name, value in (("median", np.median(gap[:, column])), ("largest", gap[:, column].max()))
    }


def main() -> None:
    from autodeco_edge.hub import resolve

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--heads", help="[default: those of the name]")
    parser.add_argument("--prompt", default=PROMPT, help="as the model reads it, with the marks of its template")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = resolve(options.model, options.heads, offline=True)
    prompt, tokens, quantised = replies(found.model, found.heads, options.tokens, options.threads, text=options.prompt)
    exact = reference(found.model, found.heads, prompt, tokens)
    with tempfile.TemporaryDirectory() as folder:
        f32 = Path(folder) / "f32.gguf"
        to_type(found.model, f32, options.threads)
        whole = replies(f32, found.heads, len(tokens), options.threads, tokens, options.prompt)[2]
    report = {
        "model": found.model.name,
        "heads": found.heads.name,
        "tokens": len(tokens),
        "t_range": [float(exact[:, 0].min()), float(exact[:, 0].max())],
        "p_range": [float(exact[:, 1].min()), float(exact[:, 1].max())],
        "quantised": differences(quantised, exact),
        "f32": differences(whole, exact),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
