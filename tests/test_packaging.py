"""What is shipped: the files of the source distribution, the pin of llama.cpp, and one copy of it in the process.

The list of files is made from git and not from the exclusions in pyproject.toml, which it tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.support import llama_source

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("autodeco_edge/", "convert/", "native/")
SHIPPED_FILES = {"pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "CHANGELOG.md"}


def git_files() -> set[str]:
    """What is tracked, or would be: new files of a working tree count, ignored ones do not."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip("this is no git checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def test_sdist_holds_the_package_and_nothing_else(tmp_path, monkeypatch):
    build = pytest.importorskip("scikit_build_core.build")
    monkeypatch.chdir(ROOT)  # where a build frontend calls the hook
    with tarfile.open(tmp_path / build.build_sdist(str(tmp_path))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in git_files() if name.startswith(SHIPPED) or name in SHIPPED_FILES}
    assert packed == wanted | {"PKG-INFO"}
    assert {f"autodeco_edge/{name}" for name in DATA} <= packed


DATA = (
    "assets/autodeco-demo-q8_0.gguf",
    "assets/config.toml",
    "assets/heads/autodeco-smollm2-135m-f16.gguf",
    "hub/registry.toml",
    "server/page/index.html",
    "server/page/js/main.js",
    "server/page/vendor/dompurify.LICENSE",
)


def test_llama_is_pinned_in_one_file():
    """The library is compiled against one version's headers and refuses any other when it is loaded. TOML cannot name
    the version once for the build and the installation; all else reads pyproject.toml, or repeats its version."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    build, run = project["build-system"]["requires"], project["project"]["dependencies"]
    (pin,) = [name for name in build if name.startswith("llama-cpp-python")]
    assert re.fullmatch(r"llama-cpp-python==[\d.]+", pin) and pin in run and text.count("llama-cpp-python==") == 2
    files = [
        *(ROOT / ".github").rglob("*.yml"),
        ROOT / "CMakeLists.txt",
        ROOT / "native" / "CMakeLists.txt",
        ROOT / "Makefile",
    ]
    assert [path for path in files if re.search(r"\d+\.\d+\.\d+", "".join(_llama_lines(path)))] == []
    pages = {path: {v for line in _llama_lines(path) for v in re.findall(r"llama-cpp-python==([\d.]+)", line)}
             for path in (ROOT / "docs").rglob("*.md")}  # fmt: skip
    assert set().union(*pages.values()) == {pin.partition("==")[2]}, pages
    assert pin.partition("==")[2] == llama_source.VERSION


def _llama_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "llama-cpp-python" in line]


def test_installed_files_hold_no_llama():
    """The native libraries are ours alone; llama.cpp stays where llama-cpp-python put it."""
    names = {Path(str(file)).name for file in distribution("autodeco-edge").files}
    native = {name for name in names if re.search(r"\.(so|dylib|dll)\b", name)}
    ending = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    prefix = "" if sys.platform == "win32" else "lib"
    assert native == {f"{prefix}autodeco{ending}", f"{prefix}autodeco-bench{ending}"}


LOADED = {
    "linux": "print(*{line.split()[-1] for line in open('/proc/self/maps')}, sep='\\n')",
    "darwin": """
import ctypes
dyld = ctypes.CDLL(None)
dyld._dyld_get_image_name.restype = ctypes.c_char_p
print(*(dyld._dyld_get_image_name(i).decode() for i in range(dyld._dyld_image_count())), sep="\\n")
""",
}


@pytest.mark.skipif(sys.platform not in LOADED, reason="no list of loaded libraries here")
def test_one_libllama_in_the_process():
    """A second copy would have a log and a list of backends of its own. The wheel of llama-cpp-python holds
    copies where its build had links, so two names of one library are two files to a linker that looks at files."""
    code = "from autodeco_edge.engine import library; library.library()\n" + LOADED[sys.platform]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for library in ("llama", "ggml-base"):
        found = [path for path in done.stdout.splitlines() if re.search(rf"/lib{library}\.", path)]
        assert len(found) == 1, found
        assert Path(found[0]).parent.parts[-2:] == ("llama_cpp", "lib")
