"""The command line: stages and their shares of the time."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

import torch

from .calibrate import calibrate
from .comparison import test
from .lab import Lab
from .likelihood import likelihood
from .more import more
from .packing import RG, collect_files, pack
from .report import export, report
from .reward import reward
from .smoke import smoke

STAGES = {"calibrate": calibrate, "likelihood": likelihood, "reward": reward, "test": test}
SHARES = {"calibrate": 0.13, "likelihood": 0.09, "reward": 0.44, "test": 0.34}


def run(options: argparse.Namespace) -> None:
    """The stages asked for; each gets its share of what is left, so what one saves the later ones have."""
    lab = Lab(options)
    end = lab.start + 60 * options.minutes
    chosen = [s for s in STAGES if s in options.stages.split(",")]
    for i, name in enumerate(chosen):
        left = (end - time.monotonic()) / 60
        share = SHARES[name] / sum(SHARES[s] for s in chosen[i:])
        lab.say(f"stage {name}: {60 * left * share:.0f} s of {60 * left:.0f} s")
        try:
            STAGES[name](lab, left * share)
        except Exception:  # the machine is lent for minutes: what the other stages can still do is worth having
            lab.say(traceback.format_exc())
    lab.say("done")


def offline(options: argparse.Namespace) -> None:
    """Imported now: the project's modules are not to be had before a Lab is made where it was carried to."""
    from .offline import offline as climb

    climb(options)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__package__ and sys.modules[__package__].__doc__.split("\n")[0])
    parser.add_argument("command", choices=("pack", "smoke", "run", "offline", "more", "gather", "report", "export"))
    parser.add_argument("folder", help="what `pack` made")
    parser.add_argument("--model", help="GGUF (pack)")
    parser.add_argument("--rg", nargs="*", default=list(RG), help="reasoning-gym tasks to pack")
    parser.add_argument("--count", type=int, default=150, help="test problems a family to pack")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="fp32 uses tf32 products on a card")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--out", help="folder of the state [default: FOLDER/state]")
    parser.add_argument("--to", help="folder of the archives (gather), of the results (report)")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=2048, help="positions whose logits exist at once in training")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=60_000, help="of right replies a group (likelihood)")
    parser.add_argument("--likelihood-steps", type=int, default=60)
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--reward-lr", type=float, default=2e-3)
    parser.add_argument("--reward-steps", type=int, default=300)
    parser.add_argument("--reward-seeds", type=int, default=1)
    parser.add_argument("--rollouts", type=int, default=2048, help="replies of a step")
    parser.add_argument("--samples", type=int, default=32, help="replies a problem in a step")
    parser.add_argument("--sigma", type=float, default=0.5, help="noise on z_P while training")
    parser.add_argument("--test-problems", type=int, default=160, help="of a group, about")
    parser.add_argument("--test-samples", type=int, default=64)
    parser.add_argument("--keep-tokens", type=int, default=4, help="samples a problem whose tokens are kept")
    parser.add_argument("--policies", nargs="*", default=[], help="of `more`: more.policy")
    parser.add_argument("--draws", default='{"exact": 8, "many": 16, "write": 2}', help="of `more`: samples a problem")
    parser.add_argument("--dry", action="store_true", help="verdicts by chance, and replies need not end")
    parser.add_argument("--scale-percent", type=int, default=100, help="of all numbers of problems: for a dry run")
    options = parser.parse_args(arguments)
    commands = {"pack": pack, "smoke": smoke, "run": run, "offline": offline, "more": more}
    commands |= {"gather": collect_files, "report": report, "export": export}
    commands[options.command](options)


if __name__ == "__main__":
    main()
