"""Owns the order of the whole recipe: tokenizer, base, samples, heads, one GGUF. The steps themselves live beside it.

    python -P demo/make.py --out build/demo --seed 0

Each step is skipped where its result is already in the output folder, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from .base import train_base
from .export import export_gguf
from .samples import write_problems, write_samples
from .tokenizer import build_tokenizer

ASSET = "autodeco-demo-q8_0.gguf"
HEADS_EPOCHS = 4
HEADS_RATE = 1e-3  # the official 5e-6 suits heads of 4,096 inputs and 30,000 long samples; these are small and few


def build(out: Path, seed: int = 0, threads: int = 2, samples: int = 5000) -> Path:
    """Make everything below `out`; returns the single-file GGUF (Q8_0 base, BF16 heads)."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tok" / "tokenizer.json").exists():
        build_tokenizer(out / "tok", seed)
    if not (out / "base" / "model.safetensors").exists():
        train_base(out / "base", out / "tok", seed, threads)
    if not (out / "samples.jsonl").exists():
        partial = out / "samples.partial"
        write_samples(out / "base", partial, seed, samples)
        partial.rename(out / "samples.jsonl")
    write_problems(out / "problems.jsonl")
    if not (out / "heads" / "model.safetensors").exists():
        train_heads(out, seed)
    export_gguf(out / "base", out / "base-q8_0.gguf", "q8_0")
    return merge(out)


def train_heads(out: Path, seed: int) -> None:
    """Both heads on the base's own right answers, official losses."""
    from autodeco_edge.train.hyperparameters import TrainConfig
    from autodeco_edge.train.trainer import train

    train(
        TrainConfig(
            base=str(out / "base"),
            data=str(out / "samples.jsonl"),
            output=str(out / "heads"),
            recipe="official",
            epochs=HEADS_EPOCHS,
            learning_rate=HEADS_RATE,
            schedule="cosine",
            batch_size=32,
            accumulation=1,
            max_length=512,
            seed=seed,
        )
    )


def merge(out: Path) -> Path:
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.merge import merge_single_file

    merge_single_file(read_checkpoint(out / "heads"), out / "base-q8_0.gguf", out / ASSET)
    return out / ASSET


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the demo model from its seed.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--install", type=Path, help="copy the result here, such as autodeco_edge/assets")
    args = parser.parse_args()
    path = build(args.out, args.seed, args.threads, args.samples)
    if args.install:
        shutil.copy(path, args.install)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
