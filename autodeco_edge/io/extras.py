"""The command that installs an optional part of this package, as it works for this installation.

Owns the wording. From a checkout, PEP 610's record of where the package came from names the folder: the index may have
no such package.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

APP = "autodeco-edge"


def how_to_install(extra: str) -> str:
    """ "pip install 'autodeco-edge[server]'", or the same with the checkout's folder, or with this interpreter's pip."""
    return f"{_pip()} install '{_source()}[{extra}]'"


def _pip() -> str:
    found = shutil.which("pip")
    ours = found is not None and Path(found).parent == Path(sys.executable).parent
    return "pip" if ours else f"{sys.executable} -m pip"


def _source() -> str:
    """The folder of the checkout, "." for the working folder, or the package's name."""
    try:
        record = json.loads(distribution(APP).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return APP
    url = urlsplit(record.get("url", ""))
    folder = unquote(url.path)
    if url.scheme != "file" or not os.path.isdir(folder):
        return APP
    return "." if os.path.realpath(folder) == os.path.realpath(os.getcwd()) else folder
