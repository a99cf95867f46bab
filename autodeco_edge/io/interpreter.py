"""How a child interpreter is started: it finds what is installed, whatever lies in the working folder.

Owns the command line. Knows nothing of what a child does.
"""

from __future__ import annotations

import sys


def interpreter(*arguments: str) -> list[str]:
    """Command for this Python with ``arguments``: ``-c CODE``, ``-m MODULE`` or a script.

    ``-P`` keeps the working folder and the script's folder off the module path: a checkout there, or a stray
    ``random.py``, would hide what is installed. Raises OSError where this Python has no program of its own
    (embedded in another).
    """
    if not sys.executable:
        raise OSError("this Python is embedded in another program, so no child interpreter can be started")
    return [sys.executable, "-P", *arguments]
