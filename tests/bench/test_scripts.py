"""The scripts in bench/: the random model, the scaling table, the picture and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodeco_edge.bench.decode import DecodeSetup, run_decode
from autodeco_edge.bench.step import StepSetup, run_step
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.errors import FormatError
from bench import make_model, plot, rows, scaling

SHAPE = make_model.Shape(n_layer=1, n_vocab=2000, n_embd=896, n_ff=256)


# ---- make_model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_model.make(tmp_path_factory.mktemp("model"), SHAPE)


def test_model_and_heads_fit_together(made):
    model, heads = made
    report = run_decode(model, heads, DecodeSetup(n_prompt=8, n_tokens=4, n_rounds=1, n_threads=1))
    assert report["model"]["n_vocab"] == SHAPE.n_vocab
    assert "Q4_K" in Model(model).description


def test_model_without_a_vocabulary_draws_ids_and_has_no_text(made):
    model, heads = made
    engine = Engine(model, heads, n_ctx=32, n_threads=1)
    assert [step.text for step in engine.generate([1, 2, 3], max_tokens=2)] == [None, None]
    for ask in (engine.model.token_bytes, engine.model.token_text, lambda i: engine.model.detokenize([i])):
        with pytest.raises(FormatError, match="without a vocabulary"):
            ask(1)


def test_only_the_two_files_are_left(made):
    assert sorted(p.name for p in made[0].parent.iterdir()) == [make_model.HEADS, make_model.MODEL]


def test_seed_gives_the_same_bytes(made, tmp_path):
    again = make_model.make(tmp_path, SHAPE)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in made]


def test_default_shape_is_half_a_billion():
    import math

    n = sum(math.prod(dims) for _, dims, _ in make_model.tensors(make_model.Shape()))
    assert 0.49e9 < n < 0.5e9


# ---- scaling and plot ----------------------------------------------------------------------------

AXES = {
    "vocabulary": ("n_vocab", (500, 1000)),
    "hidden": ("n_embd", (32, 64)),
    "rows": ("n_rows", (1, 2)),
}


@pytest.fixture(scope="module")
def results() -> dict:
    centre = StepSetup(n_vocab=500, n_embd=32, n_rounds=4)
    return json.loads(json.dumps({"step-scaling": scaling.run(centre, AXES), "step": run_step(centre)}))


def test_scaling_has_every_point(results):
    rows = results["step-scaling"]["rows"]
    assert len(rows) == 3 * 2 * len(scaling.THREADS)
    assert {(row["axis"], row["setup"]["n_threads"]) for row in rows} == {(a, n) for a in AXES for n in (1, 2)}


def test_many_rows_get_fewer_rounds_but_some():
    rounds = {s.n_rows: s.n_rounds for axis, s in scaling.points(StepSetup(n_rounds=200)) if axis == "rows"}
    assert rounds == {1: 200, 2: 100, 4: 50, 8: 30, 16: 30}


def test_rows_of_a_batch_beside_one_row(monkeypatch, capsys):
    for name, value in {"VOCABULARIES": (600,), "ROWS": (1, 3), "N_EMBD": 32}.items():
        monkeypatch.setattr(rows, name, value)
    measured = rows.measure([1, 2], 3)
    assert len(measured) == 2 * 2 * 2 and len(capsys.readouterr().out.splitlines()) == len(measured)
    assert all(row["over_one_row"] == 1.0 for row in measured if row["rows"] == 1)
    page = plot.batch_table({"rows": {"rows": measured, "load": [0.5, 0.4, 0.3]}})
    assert "| 3 / 1 |" in page and page.count("| 600 |") == 4 and "load of 0.5" in page


PAGE = "prose\n\n<!-- table: rows -->\nold\n<!-- end -->\n\nmore\n\n<!-- table: decode -->\nkept\n<!-- end -->\n"


def test_page_changes_between_the_markers_only(results):
    page = plot.fill(PAGE, results)
    assert page.startswith("prose\n\n<!-- table: rows -->\n| sequences |") and "old" not in page
    assert page.endswith("<!-- end -->\n\nmore\n\n<!-- table: decode -->\nkept\n<!-- end -->\n")
    assert plot.fill(page, results) == page


def test_the_page_of_the_project_has_every_marker(results):
    from tests.conftest import ROOT

    page = (ROOT / "docs" / "performance.md").read_text() + (ROOT / "README.md").read_text()
    for name in plot.TABLES:
        assert page.count(f"<!-- table: {name} -->") == 1
    filled = plot.fill(page, results)
    assert "peaked, µs" in filled and "| 1,000 | flat |" in filled


def test_picture(results, tmp_path):
    pytest.importorskip("matplotlib")
    plot.draw(results["step-scaling"], tmp_path / "a.svg")
    plot.draw(results["step-scaling"], tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


# ---- the page of results -------------------------------------------------------------------------


def test_the_results_page_shows_the_recorded_results():
    """Every table of docs/results.md is what bench/results gives; `make results` after a change."""
    from bench import results

    root = Path(__file__).parents[2]
    reports = results.read(root / "bench/results")
    assert {needed for needed, _ in results.TABLES.values()} <= reports.keys()
    page = (root / "docs/results.md").read_text()
    assert plot.fill(page, reports, results.TABLES) == page
    for name in results.TABLES:
        assert f"<!-- table: {name} -->" in page
