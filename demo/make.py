"""Starts the recipe (or the part of it that is named first) from a checkout: puts the repository behind the installed
packages, so that `demo` is found here and `autodeco_edge` where it is installed, with its native library."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

PARTS = ("compare", "export", "messages", "samples")
name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in PARTS else "build"
import_module(f"demo.{name}").main()
