"""The processes of a run, as accelerate finds them.

Owns how an Accelerator is opened and how it spreads a frozen base over devices. Knows nothing of training.
"""

from __future__ import annotations

import os
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedType, is_cuda_available, is_npu_available, is_xpu_available

from .backbone import Shard


def is_first() -> bool:
    """Of the processes that a launcher started, before they have met; True for the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def open_accelerator(tracker: str | None, folder: str | Path) -> Accelerator:
    """tracker: accelerate's name of one, checked; those that write files do so in ``folder``/logs."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # accelerate leaves processes on the CPU unjoined unless told: each would be a run of its own into the same folder
    cpu = several and not (is_cuda_available() or is_npu_available() or is_xpu_available())
    return Accelerator(cpu=cpu, log_with=tracker, project_dir=str(Path(folder) / "logs") if tracker else None)


def shard_with(accelerator: Accelerator, batch_size: int) -> Shard | None:
    """What spreads a model's weights over the processes; None where each holds all of them."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = batch_size
        return accelerator.prepare
    if accelerator.distributed_type == DistributedType.FSDP:
        return accelerator.prepare
    return None
