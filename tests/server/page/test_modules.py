"""The page's own JavaScript, read as text: what a linter would find, without one."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

import pytest

from autodeco_edge.server.page_files import FOLDER

MODULES = {path.name: path.read_text(encoding="utf-8") for path in sorted((FOLDER / "js").glob("*.js"))}
IMPORT = re.compile(r'^import (?:\{ ([^}]+) \}|(\w+)) from "\./([^"]+)";$', re.M)
EXPORT = re.compile(r"^export (?:async )?(?:function\*? |class |const )(\w+)", re.M)
ONLY_IN = {  # what touches the world outside, and the one module that may
    r"\bfetch\(": {"server.js"},
    r"\blocalStorage\b": {"settings.js"},
    r"\bsessionStorage\b": {"tab_key.js"},
    r"\bindexedDB\b": {"archive.js"},
    r"\bhistory\.": {"address.js"},
    r"\bDOMPurify\b": {"markdown.js"},
    r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|document\.write|srcdoc": set(),
    r"\beval\(|new Function|setAttribute\(\"(?:style|on)|javascript:": set(),
    r"console\.|debugger|TODO|FIXME": set(),
    r"\bvar |(?<![=!<>])[=!]=(?!=| null)": set(),
}


def own_imports(text: str) -> dict[str, str]:
    """{name: module} of what is imported from beside it."""
    return {name.strip(): module for names, _, module in IMPORT.findall(text) for name in names.split(",") if name}


def code_of(text: str) -> str:
    """Without comments and strings, so that a word in them counts for nothing."""
    return re.sub(r'/\*.*?\*/|(?<!:)//[^\n]*|"(?:[^"\\\n]|\\.)*"', "", text, flags=re.S)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_whole(name):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run([node, "--input-type=module", "--check"], input=MODULES[name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_there_and_used(name):
    text = MODULES[name]
    body = code_of(IMPORT.sub("", text))
    for imported, module in own_imports(text).items():
        assert imported in EXPORT.findall(MODULES[module]), f"{module} has no {imported}"
        assert re.search(rf"\b{imported}\b", body), f"{imported} is not used"


def test_nothing_is_exported_for_nobody():
    wanted = {(module, name) for text in MODULES.values() for name, module in own_imports(text).items()}
    given = {(module, name) for module, text in MODULES.items() for name in EXPORT.findall(text)}
    assert given == wanted
    reached = set().union(*(own_imports(text).values() for text in MODULES.values()))
    assert set(MODULES) - reached == {"main.js"}


def test_imports_go_one_way():
    @cache
    def height(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, " imports ".join((*above, name))
        return 1 + max((height(each, (*above, name)) for each in own_imports(MODULES[name]).values()), default=0)

    assert height("main.js") < len(MODULES)


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_what_touches_the_world_is_in_one_place(pattern):
    found = {name for name, text in MODULES.items() if re.search(pattern, code_of(text))}
    assert found == ONLY_IN[pattern]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is_and_stays_short(name):
    lines = MODULES[name].splitlines()
    assert lines[0].startswith("/**") and len(lines) < 200
    assert max(map(len, lines)) <= 200


def test_elements_that_are_looked_for_are_there():
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    wanted = {name for text in MODULES.values() for name in re.findall(r'byId\("([^"]+)"\)', text)}
    assert wanted <= ids, wanted - ids
    unknown = set(re.findall(r"var\((--[a-z-]+)", "".join(p.read_text() for p in FOLDER.glob("css/*.css")))) - {
        name for p in FOLDER.glob("css/*.css") for name in re.findall(r"(--[a-z0-9-]+):", p.read_text())
    }
    assert not {name for name in unknown if not name.startswith("--series-")}
