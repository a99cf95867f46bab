"""``autodeco-edge train``: options to a TrainConfig or a RewardConfig.

Owns the option names and their help. The work is in autodeco_edge.train.trainer, imported
inside the command so that ``--help`` needs neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..io.extras import how_to_install
from ..paths import hub_endpoint
from .settings import shared, takes

if TYPE_CHECKING:
    from ..train.hyperparameters import TrainConfig
    from ..train.reinforce import RewardConfig

NEEDED = ("torch", "transformers", "accelerate", "safetensors")


@dataclass(frozen=True)
class TrainOptions:
    """Defaults leave everything to the recipe."""

    output: Annotated[str, typer.Option("--output", "-o", help="Folder for model.safetensors and config.json.")]
    data: Annotated[
        str | None, typer.Option("--data", help='JSONL: {"prompt", "completion"} or {"messages"} a line.')
    ] = None
    base: Annotated[str | None, typer.Option("--base", help="Hugging Face model: folder or id. Stays frozen.")] = None
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="GGUF to train on instead of --base, as it is run.")
    ] = None
    init: Annotated[
        str | None, typer.Option(help="Heads to start from (folder or file, a GGUF too); default: fresh.")
    ] = None
    heads: Annotated[str, typer.Option(help="Heads to train: both, temp or top-p.")] = "both"
    objective: Annotated[
        str,
        typer.Option(
            help="official (two weighted terms), likelihood (no weight), joint (one final distribution), or reward "
            "(a verifier's verdicts on --problems; needs -m and --init)."
        ),
    ] = "official"
    loss: Annotated[str, typer.Option(help="Form of the official objective: hf (Hugging Face code) or nemo.")] = "hf"
    basic: Annotated[bool, typer.Option("--basic", help="Fresh top-p head without the four statistics.")] = False
    recipe: Annotated[
        str,
        typer.Option(
            help="Settings that are left open: auto (for any base; keeps the heads of the lowest held-out loss) or "
            "official (rate 5e-6, one epoch of 32 samples a step)."
        ),
    ] = "auto"
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the data. [default: auto: what 300 steps take, at most 30]", show_default=False),
    ] = None
    max_steps: Annotated[int, typer.Option(help="Optimiser steps; 0: as many as the epochs give.")] = 0
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="Peak learning rate. [default: auto: by the size of the base's hidden states; reward: 3e-4]",
            show_default=False,
        ),
    ] = None
    problems: Annotated[
        str | None, typer.Option(help="reward: problems as JSONL, or the name of a task (training split).")
    ] = None
    problems_per_step: Annotated[int, typer.Option("--problems-per-step", help="reward: problems in one step.")] = 16
    samples: Annotated[int, typer.Option("--samples", help="reward: replies a problem.")] = 16
    diversity: Annotated[float, typer.Option(help="reward: weight of distinct right solutions.")] = 1.0
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", help="reward: tokens of a reply.")] = 512
    n_ctx: Annotated[
        int, typer.Option("--ctx-size", "-c", help="reward: tokens of prompt and reply; 0: what they need.")
    ] = 0
    parallel: Annotated[int, typer.Option("--parallel", help="reward: replies side by side.")] = 32
    schedule: Annotated[
        str | None,
        typer.Option(help="linear or cosine to 0, or constant. [default: auto: cosine]", show_default=False),
    ] = None
    warmup_steps: Annotated[
        int | None, typer.Option(help="Linear warm-up. [default: auto: 5 % of the steps]", show_default=False)
    ] = None
    batch_size: Annotated[int, typer.Option(help="Samples in a batch.")] = 8
    accumulation: Annotated[
        int | None, typer.Option(help="Batches averaged in one step. [default: auto: 1]", show_default=False)
    ] = None
    max_length: Annotated[int, typer.Option(help="Tokens of a sample; the first ones are kept.")] = 2048
    clip_norm: Annotated[float, typer.Option(help="Largest gradient norm.")] = 1.0
    drop_probability: Annotated[
        float | None, typer.Option(help="Share of easy tokens left out; default: 0.6 for official, else 0.")
    ] = None
    validation: Annotated[
        float | None, typer.Option(help="Share of the samples held out. [default: auto: 0.1]", show_default=False)
    ] = None
    seed: Annotated[int, typer.Option(help="Fixes initialisation, order, split and drop mask.")] = 42
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for the forward pass of --base.")] = "fp32"
    base_dtype: Annotated[str, typer.Option(help="How --base is loaded: auto, float32, bfloat16.")] = "float32"
    save_dtype: Annotated[str, typer.Option(help="bf16 (official), f16 or f32.")] = "bf16"
    threads: Annotated[
        int, typer.Option("--threads", "-t", help="Threads of llama.cpp, with -m; 0: one a physical core.")
    ] = 0
    cache_mb: Annotated[int, typer.Option(help="Memory for hidden states seen before (MiB).")] = 1024
    log_every: Annotated[int, typer.Option(help="Steps between progress lines; 0: none.")] = 10
    eval_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between validations; 0: before and after only. [default: auto: 10 in a run]", show_default=False
        ),
    ] = None
    save_every: Annotated[int, typer.Option(help="Steps between states to resume from; 0: none.")] = 0
    steer: Annotated[
        bool,
        typer.Option(
            "--steer", help="Teach the heads of --init commands for less and more diversity; data as messages."
        ),
    ] = False
    steer_weight: Annotated[float, typer.Option("--steer-weight", help="Weight of the ranking loss of --steer.")] = 1.0
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --output.")] = False
    tracker: Annotated[str | None, typer.Option(help="Log every step to tensorboard, wandb, mlflow, ...")] = None

    # ---- what they mean ---------------------------------------------------------------------

    def supervised(self) -> TrainConfig:
        """Raises UsageError for what cannot be meant together with texts to learn from."""
        if self.data is None or self.problems is not None:
            raise UsageError(
                f"--objective {self.objective} learns from --data FILE.jsonl; --problems is for --objective reward"
            )
        from ..train.hyperparameters import TrainConfig

        return shared(self, TrainConfig, enhanced=not self.basic)

    def reward(self) -> RewardConfig:
        """Raises UsageError for what cannot be meant where a verifier teaches."""
        if self.steer:
            raise UsageError("--steer ranks replies that are given: it goes with --data, not with --objective reward")
        if not (self.model and self.problems and self.init):
            raise UsageError("--objective reward needs -m MODEL.gguf, --problems TASK and --init HEADS")
        if self.data or self.base:
            raise UsageError("--objective reward takes neither --data nor --base: it draws its own replies with -m")
        from ..train.reinforce import RewardConfig

        rate = RewardConfig.learning_rate if self.learning_rate is None else self.learning_rate
        return shared(self, RewardConfig, steps=self.max_steps or RewardConfig.steps, learning_rate=rate)


@takes(TrainOptions)
def train(ctx: Any, **values: Any) -> None:
    """Train AutoDeco heads on a frozen base model; saved in the official format.

    Example: autodeco-edge train -m model-Q4_K_M.gguf --data answers.jsonl -o heads/
    """
    check_packages("train")
    options = TrainOptions(**values)
    if options.objective == "reward":
        from ..train.reinforce import train_on_reward

        train_on_reward(options.reward())
        return
    config = options.supervised()
    hub_endpoint()  # what is no address is said here; transformers would fail when it is imported
    from transformers.utils import logging

    from ..train.trainer import train as run_training

    logging.disable_progress_bar()
    run_training(config)


def check_packages(command: str) -> None:
    """Raises UsageError if an optional package that the command needs is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"{command} needs {', '.join(missing)}: run  {how_to_install('train')}")
