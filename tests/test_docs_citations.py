"""What the code and the pages refer to is there: sections, files, and names in files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SUFFIXES = {".py", ".c", ".h", ".md", ".txt", ".toml", ".yml", ".sh"}


def pages(folder: Path = ROOT) -> list[Path]:
    """Text files of the repository; without git those of its folders, build outputs left out."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        paths = [
            p
            for top in ("autodeco_edge", "convert", "native", "tests", "docs", "demo", "bench")
            for p in (ROOT / top).rglob("*")
        ]
        paths += ROOT.glob("*.md")
    return [p for p in paths if p.suffix in SUFFIXES and p.is_file() and p.is_relative_to(folder)]


TEXTS = {path: path.read_text(encoding="utf-8", errors="replace") for path in pages() if path != Path(__file__)}


def sections(page: str) -> set[int]:
    return {int(n) for n in re.findall(r"^## (\d+)\. ", TEXTS[DOCS / page], re.MULTILINE)}


def numbers(text: str) -> list[int]:
    """ "3", "2, 3", "7 to 10", "3 and 5", "7 + 8" """
    first, *_ = found = [int(n) for n in re.findall(r"\d+", text)]
    return list(range(first, found[-1] + 1)) if " to " in text else found


LIST = r"(\d+(?:(?:, | and | to | \+ )\d+)*)"
CITATIONS = {"equations.md": rf"\b[Ee]quations {LIST}\b(?! ?%)", "format.md": rf"format\.md\)? sections? {LIST}\b"}


@pytest.mark.parametrize("page", CITATIONS)
def test_every_section_cited_exists(page):
    known = sections(page)
    cited = {path: re.findall(CITATIONS[page], text) for path, text in TEXTS.items()}
    wrong = [
        (path.name, text) for path, found in cited.items() for text in found if not known.issuperset(numbers(text))
    ]
    assert not wrong
    assert sum(map(len, cited.values())) >= 5, "the pattern finds nothing any more"


def test_nothing_outside_the_repository_is_cited():
    outside = re.compile(
        r"\b[Ss]emantics \d|\bshared/(?!tasks)\w+\.md|\.\./shared|\(evidence\b|\b[Rr]ow \d+ of the (fault )?list"
    )
    assert [(path.name, m.group()) for path, text in TEXTS.items() for m in outside.finditer(text)] == []


@pytest.mark.parametrize(
    "page", sorted({*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "tests/golden/README.md"}), ids=lambda p: p.name
)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def names_in(page: Path) -> list[str]:
    return re.findall(
        r"`((?:autodeco_edge|convert|native|tests)/[\w./-]*(?:::[\w.]+)?)`", page.read_text(encoding="utf-8")
    )


def defines(text: str, name: str) -> bool:
    """Whether every part of ``Class.method`` is defined in the text of a file, Python or C."""
    return all(
        re.search(rf"(?:def|class) {part}\b|^{part}\b.*=|^\w[^\n;#]*\b{part}[(\[]", text, re.MULTILINE)
        for part in name.split(".")
    )


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.name)
def test_files_and_names_in_files_are_there(page):
    for cited in names_in(page):
        file, _, name = cited.partition("::")
        assert (ROOT / file).exists(), cited
        assert not name or defines((ROOT / file).read_text(encoding="utf-8"), name), cited


def test_the_map_of_changes_names_tests():
    rows = TEXTS[DOCS / "architecture.md"].partition("## What to change where")[2].splitlines()
    rows = [row for row in rows if row.startswith("| ") and not row.startswith("| Change")]
    assert len(rows) >= 8 and all("`tests/" in row.rsplit("|", 2)[1] for row in rows)


def test_every_decision_is_in_the_index_and_says_what_supersedes_it():
    folder = DOCS / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for path in sorted(folder.glob("0*.md")):
        lines = path.read_text(encoding="utf-8").splitlines()
        row = next(line for line in index.splitlines() if line.startswith(f"| [{path.name[:4]}]({path.name}) |"))
        assert lines[0] == "# " + " ".join((path.name[:4], row.split(" | ")[1])), f"{path.name}: title and index differ"
        later = re.match(r"Superseded by (\[\d+\]\([^)]+\))", lines[2])
        assert row.endswith(f"superseded by {later.group(1)} |" if later else "in force |"), path.name
