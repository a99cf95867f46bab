"""The process in which ``kv_overrides`` are tried (trial.py): `python -m autodeco_edge.dropin.trial_child`, a request on stdin.

Opens the model as asked and reads a text, decodes one token. Status 0 for every outcome but the end of the process.
"""

from __future__ import annotations

import contextlib
import json
import sys

from . import trial
from .llama import Llama

TEXT = "".join(map(chr, range(256))) + "\u65e5\U0001f600"  # a vocabulary may be overridden, too


def main() -> None:
    trial.under_trial = True
    path, options = json.loads(sys.stdin.buffer.read())
    options |= {"verbose": True, "heads": None}  # llama.cpp's last words are in what it prints
    with contextlib.suppress(Exception), Llama(path, **options) as llama:
        llama.tokenize(TEXT.encode())
        if options.get("embedding"):
            llama.embed("a")
        elif not options.get("vocab_only"):
            llama.eval([0])


if __name__ == "__main__":
    main()
