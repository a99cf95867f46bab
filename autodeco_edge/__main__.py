"""The command `autodeco-edge`, and `python -m autodeco_edge`.

Owns Ctrl-C while the program is still being imported and after it has ended: exit code 130 without a traceback; and the
end of a server that is told to end before it has begun. Everything between is cli/.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Where somebody ignores SIGINT for us, as nohup and a shell's `&` do, that stays so."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # nothing is begun yet that could be lost
    if sys.argv[1:2] == ["serve"]:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from .cli import main as command

    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:  # as the command ended
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter has a little to tidy up
        exec(
            ""
        )  # Python forgets an interrupt inside text that was executed, by which it would end, though it was caught


if __name__ == "__main__":
    main()
