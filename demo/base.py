"""Owns the base model and its training: a Qwen2 of about 5 M parameters, on documents made as it goes, from a seed.

The loss is on the assistant's turns only. It knows no text (`families`), no verifier (`evaluate`) and no heads.
The same seed, thread count and kind of processor give the same weights; another processor rounds otherwise.

    python -m demo.base OUT_DIR TOKENIZER_DIR [--seed S] [--first-stage K]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from autodeco_edge.tasks.demo import families

from .batches import IGNORE, POOL_DOCUMENTS, Batch, batches
from .tokenizer import EOS_ID, MAX_LENGTH, PAD_ID, VOCAB_SIZE, load_tokenizer

LEARN_TOKENS = 6_493_056
SETTLE_TOKENS, SETTLE_STOP = 10_000_000, 8_700_000
FINISH_TOKENS = 1_700_000


@dataclass(frozen=True)
class Plan:
    """One stage of training. `tokens` counts every position fed, padding included: it is what costs time."""

    seed: int = 0
    tokens: int = 10_000_000  # sets the schedule
    stop_tokens: int | None = None  # where the stage ends, if before its schedule does
    batch_tokens: int = 4096
    max_length: int = 384
    pool_documents: int = POOL_DOCUMENTS
    matrix_lr: float = 4e-3  # Muon, on the matrices of the layers
    other_lr: float = 2e-3  # AdamW, on embeddings, norms and biases
    final_lr_share: float = 0.02
    warmup_steps: int = 100
    decay_share: float = 0.0  # the last part of the stage, over which the rate falls
    clean_share: float = 1.0  # the first part of the stage, in which no result slips
    slip_rate: float = 1.0
    compile: bool = True
    threads: int = 2
    weights: dict[str, float] = field(default_factory=families.default_weights)


def stages(seed: int, threads: int = 2) -> list[Plan]:
    """The demo's recipe: learn at full rate, let the rate fall, and finish on what is hardest.

    Slips (see `problem.SLIP_CHANCE`) come late: arithmetic is learned faster from clean text, and the error mass is
    learned quickly afterwards.
    """
    usual = families.default_weights()
    learn = Plan(seed=seed, tokens=LEARN_TOKENS, threads=threads)
    settle = Plan(
        seed=seed + 1,
        tokens=SETTLE_TOKENS,
        stop_tokens=SETTLE_STOP,
        matrix_lr=3e-3,
        other_lr=1.5e-3,
        warmup_steps=50,
        decay_share=0.8,
        clean_share=0.6,
        threads=threads,
        weights={**usual, "story": 2.0},
    )
    finish = Plan(
        seed=seed + 2,
        tokens=FINISH_TOKENS,
        matrix_lr=1e-3,
        other_lr=5e-4,
        warmup_steps=20,
        decay_share=1.0,
        clean_share=0.0,
        threads=threads,
        weights={**usual, "chain": 6.0, "search": 5.0, "make": 2.5, "story": 1.5, "chat": 2.0},
    )
    return [learn, settle, finish]


def new_model(seed: int = 0, **changes) -> Qwen2ForCausalLM:
    """A fresh model, float32. `changes` override the configuration (tests want a smaller one)."""
    torch.manual_seed(seed)
    values = dict(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=768,
        tie_word_embeddings=True,
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return Qwen2ForCausalLM(Qwen2Config(**{**values, **changes}))


@dataclass
class Progress:
    tokens: int = 0
    targets: int = 0
    steps: int = 0
    seconds: float = 0.0


def learning_share(plan: Plan, progress: Progress) -> float:
    """Warm-up, a plateau, then a straight fall to `final_lr_share` (WSD)."""
    warm = min(1.0, (progress.steps + 1) / plan.warmup_steps)
    left = (1 - progress.tokens / plan.tokens) / max(plan.decay_share, 1e-9)
    return warm * max(plan.final_lr_share, min(1.0, left))


def optimizers(model: Qwen2ForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    muon = torch.optim.Muon(matrices, lr=plan.matrix_lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=plan.other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adam]


def loss_of(model: Qwen2ForCausalLM, body, batch: Batch) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy over the target tokens, and their number. Logits are made for those positions alone."""
    ids, labels = batch
    hidden = body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # [rows, length - 1, hidden]
    wanted = labels[:, 1:] != IGNORE
    logits = model.lm_head(hidden[wanted])  # [targets, vocab]
    return F.cross_entropy(logits.float(), labels[:, 1:][wanted]), int(wanted.sum())


def train_base(
    out_dir: str | Path, tokenizer_dir: str | Path, seed: int = 0, threads: int = 2, first_stage: int = 0
) -> Path:
    """Train the base by the recipe into `out_dir`; the checkpoint of stage k stays beside it as `out_dir`-k.

    `first_stage` > 0 goes on from the checkpoint of the stage before.
    """
    out_dir, plans = Path(out_dir), stages(seed, threads)
    for number in range(first_stage, len(plans)):
        before = stage_dir(out_dir, number - 1) if number else None
        last = train_stage(stage_dir(out_dir, number), tokenizer_dir, plans[number], before)
    shutil.copytree(last, out_dir, dirs_exist_ok=True)
    return out_dir


def stage_dir(out_dir: Path, number: int) -> Path:
    return out_dir.with_name(f"{out_dir.name}-{number}")


def train_stage(
    out_dir: str | Path,
    tokenizer_dir: str | Path,
    plan: Plan,
    resume: str | Path | None = None,
    checkpoint_every_s: float = 600.0,
) -> Path:
    """Train by one plan and save a Hugging Face checkpoint (weights, config, tokenizer) and `training.json`.

    `resume` starts from a checkpoint's weights, with fresh optimizers.
    """
    torch.set_num_threads(plan.threads)
    tokenizer = load_tokenizer(tokenizer_dir)
    model = Qwen2ForCausalLM.from_pretrained(resume, dtype=torch.float32) if resume else new_model(plan.seed)
    body = torch.compile(model.model, dynamic=True) if plan.compile else model.model
    progress, opts = Progress(), optimizers(model, plan)
    model.train()
    started = saved = time.monotonic()
    losses: list[float] = []
    for batch in _stream(plan, tokenizer, progress):
        share = learning_share(plan, progress)
        losses.append(_step(model, body, opts, batch, share, progress))
        progress.seconds = time.monotonic() - started
        if progress.steps % 50 == 0:
            _report(progress, losses, share)
        if time.monotonic() - saved > checkpoint_every_s:
            _save(model, tokenizer, Path(out_dir), plan, progress, resume)
            saved = time.monotonic()
        if progress.tokens >= (plan.stop_tokens or plan.tokens):
            break
    _save(model, tokenizer, Path(out_dir), plan, progress, resume)
    return Path(out_dir)


def _stream(plan: Plan, tokenizer, progress: Progress) -> Iterator[Batch]:
    def slip_rate() -> float:
        return plan.slip_rate if progress.tokens >= plan.clean_share * plan.tokens else 0.0

    rng = random.Random(f"base {plan.seed} {progress.tokens}")
    return batches(tokenizer, rng, plan.weights, slip_rate, plan.batch_tokens, plan.max_length, plan.pool_documents)


def _step(model, body, opts, batch: Batch, share: float, progress: Progress) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, targets = loss_of(model, body, batch)
    if not math.isfinite(float(loss.detach())):
        raise FloatingPointError(
            f"the loss is {float(loss.detach())} at step {progress.steps}; lower the learning rates"
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in opts:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    progress.tokens += batch[0].numel()
    progress.targets += targets
    progress.steps += 1
    return float(loss.detach())


def _report(progress: Progress, losses: list[float], share: float) -> None:
    recent = losses[-50:]
    print(
        f"step {progress.steps} tokens {progress.tokens / 1e6:.2f}M loss {sum(recent) / len(recent):.4f} lr x{share:.3f} "
        f"{progress.tokens / progress.seconds:.0f} tok/s {progress.seconds / 60:.1f} min",
        flush=True,
    )


def _save(model, tokenizer, out_dir: Path, plan: Plan, progress: Progress, resume: str | Path | None) -> None:
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    stage = {
        "seed": plan.seed,
        "tokens": progress.tokens,
        "target_tokens": progress.targets,
        "steps": progress.steps,
        "minutes": round(progress.seconds / 60, 1),
    }
    earlier = json.loads((Path(resume) / "training.json").read_text())["stages"] if resume else []
    facts = {"parameters": sum(p.numel() for p in model.parameters()), "stages": [*earlier, stage]}
    (out_dir / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo base model.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("tokenizer_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-stage", type=int, default=0, help="go on after the stages before this one")
    parser.add_argument(
        "--threads", type=int, default=2, help="1 where other work keeps a core busy: threads wait for each other"
    )
    args = parser.parse_args()
    train_base(args.out_dir, args.tokenizer_dir, args.seed, args.threads, args.first_stage)


if __name__ == "__main__":
    main()
