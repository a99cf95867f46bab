"""Starts the recipe (or, with `compare` first, the comparison) from a checkout: puts the repository behind the installed
packages, so that `demo` is found here and `autodeco_edge` where it is installed, with its native library."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

name = sys.argv.pop(1) if sys.argv[1:2] == ["compare"] else "build"
import_module(f"demo.{name}").main()
