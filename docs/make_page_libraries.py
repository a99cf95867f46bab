"""Fetches the libraries of the server's page into autodeco_edge/server/page/vendor, as their makers built them.

python docs/make_page_libraries.py            fetches the versions below from npm; for another, change it here first
python docs/make_page_libraries.py --check    exits 1 when a file is not the one that README.md in that folder tells of

npm compares what it gets with the registry's checksum. Nothing is built or changed here.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "autodeco_edge" / "server" / "page" / "vendor"


@dataclass(frozen=True)
class Library:
    name: str
    version: str
    licence: str
    purpose: str
    files: tuple[str, ...]


LIBRARIES = (
    Library("uplot", "1.6.32", "MIT", "the plot", ("dist/uPlot.esm.js", "dist/uPlot.min.css", "LICENSE")),
    Library("marked", "18.2.1", "MIT", "Markdown to HTML", ("lib/marked.esm.js", "LICENSE")),
    Library("dompurify", "3.5.0", "Apache-2.0 or MPL-2.0", "the HTML made harmless", ("dist/purify.es.mjs", "LICENSE")),
)


def stored(library: Library, file: str) -> str:
    """The name that it has here."""
    name = Path(file).name
    return f"{library.name}.{name}" if name == "LICENSE" else name


def fetch(library: Library, folder: Path) -> None:
    command = ["npm", "pack", "--silent", f"{library.name}@{library.version}"]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with tarfile.open(folder / f"{library.name}-{library.version}.tgz") as archive:
        for file in library.files:
            found = archive.extractfile(f"package/{file}")
            assert found is not None, file
            (VENDOR / stored(library, file)).write_bytes(found.read())


def readme() -> str:
    lines = [
        "# Libraries of the page",
        "",
        "Unchanged files of npm packages; written by `python docs/make_page_libraries.py`.",
        "",
    ]
    lines += ["| library | version | licence | for | file | SHA-256 |", "|---|---|---|---|---|---|"]
    for library in LIBRARIES:
        head = f"| {library.name} | {library.version} | {library.licence} | {library.purpose}"
        for name in (stored(library, file) for file in library.files):
            lines.append(f"{head} | {name} | {hashlib.sha256((VENDOR / name).read_bytes()).hexdigest()} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--check" in sys.argv:
        return int((VENDOR / "README.md").read_text(encoding="utf-8") != readme())
    VENDOR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for library in LIBRARIES:
            fetch(library, Path(folder))
    (VENDOR / "README.md").write_text(readme(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
