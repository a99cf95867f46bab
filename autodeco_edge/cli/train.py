"""``autodeco-edge train``: options to a TrainConfig.

Owns the option names and their help. The work is in autodeco_edge.train.loop, imported
inside the command so that ``--help`` needs neither torch nor transformers.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from ..errors import UsageError

NEEDED = ("torch", "transformers", "accelerate", "safetensors")


def train(
    data: Annotated[str, typer.Option("--data", help='JSONL: {"prompt", "completion"} or {"messages"} a line.')],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for model.safetensors and config.json.")],
    base: Annotated[str | None, typer.Option("--base", help="Hugging Face model: folder or id. Stays frozen.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="GGUF to train on instead of --base, as it is run.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Heads to start from (folder or file); default: fresh.")] = None,
    heads: Annotated[str, typer.Option(help="Heads to train: both, temp or top-p.")] = "both",
    loss: Annotated[str, typer.Option(help="Loss: hf (official Hugging Face code) or nemo.")] = "hf",
    basic: Annotated[bool, typer.Option("--basic", help="Fresh top-p head without the four statistics.")] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 1,
    max_steps: Annotated[int, typer.Option(help="Optimiser steps; 0: as many as the epochs give.")] = 0,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate; small bases want more, such as 1e-3.")] = 5e-6,
    schedule: Annotated[str, typer.Option(help="linear or cosine to 0, or constant.")] = "linear",
    warmup_steps: Annotated[int, typer.Option(help="Linear warm-up.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Samples in a batch.")] = 8,
    accumulation: Annotated[int, typer.Option(help="Batches averaged in one step.")] = 4,
    max_length: Annotated[int, typer.Option(help="Tokens of a sample; the first ones are kept.")] = 2048,
    clip_norm: Annotated[float, typer.Option(help="Largest gradient norm.")] = 1.0,
    drop_probability: Annotated[float, typer.Option(help="Share of easy tokens left out of the loss.")] = 0.6,
    validation: Annotated[float, typer.Option(help="Share of the samples held out.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Fixes initialisation, order, split and drop mask.")] = 42,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for the forward pass of --base.")] = "fp32",
    base_dtype: Annotated[str, typer.Option(help="How --base is loaded: auto, float32, bfloat16.")] = "float32",
    save_dtype: Annotated[str, typer.Option(help="bf16 (official), f16 or f32.")] = "bf16",
    threads: Annotated[int, typer.Option("--threads", "-t", help="Of llama.cpp, with -m; 0: one a core.")] = 0,
    cache_mb: Annotated[int, typer.Option(help="Memory for hidden states seen before (MiB).")] = 1024,
    log_every: Annotated[int, typer.Option(help="Steps between progress lines; 0: silent.")] = 10,
) -> None:
    """Train AutoDeco heads on a frozen base model; saved in the official format.

    Example: autodeco-edge train -m model-Q4_K_M.gguf --data answers.jsonl -o heads/
    """
    check_packages()
    from transformers.utils import logging

    from ..train.loop import TrainConfig
    from ..train.loop import train as run_training

    logging.disable_progress_bar()
    run_training(
        TrainConfig(
            base=base,
            model=model,
            data=data,
            output=output,
            init=init,
            heads=heads,
            loss=loss,
            enhanced=not basic,
            epochs=epochs,
            max_steps=max_steps,
            learning_rate=lr,
            schedule=schedule,
            warmup_steps=warmup_steps,
            batch_size=batch_size,
            accumulation=accumulation,
            max_length=max_length,
            clip_norm=clip_norm,
            drop_probability=drop_probability,
            validation=validation,
            seed=seed,
            precision=precision,
            base_dtype=base_dtype,
            save_dtype=save_dtype,
            threads=threads,
            cache_mb=cache_mb,
            log_every=log_every,
        )
    )


def check_packages() -> None:
    """Raises UsageError if an optional package is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"train needs {', '.join(missing)}: run  pip install 'autodeco-edge[train]'")
