"""Owns batched decoding of the base with Hugging Face `generate`: many chat prompts in, finished completions out.

It knows no verifier. Heads are not applied here: this is the plain base, for judging it and for sampling from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from autodeco_edge.tasks.demo.problem import IM_END

from .tokenizer import load_tokenizer

MAX_NEW_TOKENS = 200


def load_base(directory: str | Path) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """The checkpoint in float32, ready to decode."""
    model = Qwen2ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval(), load_tokenizer(directory)


@torch.inference_mode()
def complete(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str | None]:
    """One completion a prompt, without the end marker; None where it did not end within `max_new_tokens`.

    `temperature` 0 is greedy; otherwise plain sampling, with no top-k and top-p = 1.
    Prompts of like length share a batch (left padding), and the result is in the order of `prompts`.
    """
    torch.manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    completions: list[str | None] = [None] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer([prompts[i] for i in rows], return_tensors="pt", padding=True, add_special_tokens=False)
        sampling = (
            dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
        )
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sampling,
        )
        texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=False)
        for i, text in zip(rows, texts, strict=True):
            body, end, _ = text.partition(IM_END)
            completions[i] = body if end else None
    return completions
