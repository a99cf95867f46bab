"""Draws docs/images/performance.svg and fills the tables of docs/performance.md and a line of the README.

    python bench/plot.py --results bench/results --page docs/performance.md README.md --svg docs/images/performance.svg

Reads step-scaling.json, step.json and decode.json. Owns the picture and the tables, and replaces only what stands between
`<!-- table: NAME -->` and `<!-- end -->`. A table without its results is left as it is.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from autodeco_edge.bench.machine import one_line
from autodeco_edge.cli.bench import DECODE_ROWS, STEP_ROWS

# Okabe and Ito's palette; each line has a marker of its own too.
LINES = (
    ("temp_top_p_us", "temp + top-p + dist", "#D55E00", "s", "-"),
    ("greedy_us", "greedy", "#009E73", "^", "-"),
    ("autodeco_us", "AutoDeco", "#0072B2", "o", "-"),
    ("sweep", "plain read of logits and heads", "#555555", "", "--"),
)
PANELS = (("vocabulary", "n_vocab", "vocabulary (tokens)"), ("hidden", "n_embd", "hidden size"))
CASES = ("peaked", "flat")


def sweep_us(case: dict) -> float:
    return case["logits_sweep_us"] + case["weights_sweep_us"]


def value(case: dict, key: str) -> float:
    return sweep_us(case) if key == "sweep" else case[key]


# ---- picture -------------------------------------------------------------------------------------


def draw(scaling: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "autodeco", "font.size": 10})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9.4, 6.6), sharey=True, sharex="col", layout="constrained")
    for column, (axis, field, label) in enumerate(PANELS):
        rows = select(scaling, axis, n_threads=1)
        for row, case in enumerate(CASES):
            _panel(axes[row][column], rows, field, case)
            axes[row][column].set_title(f"{case} logits", fontsize=10, loc="left")
        axes[1][column].set_xlabel(label)
    for row in range(2):
        axes[row][0].set_ylabel("µs a step, 1 thread")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(LINES), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(axes, rows: list[dict], field: str, case: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    sizes = [row["setup"][field] for row in rows]
    for key, label, colour, marker, style in LINES:
        axes.plot(
            sizes, [value(row["cases"][case], key) for row in rows],
            label=label, color=colour, marker=marker, linestyle=style, markersize=5, linewidth=1.6,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(_apart(sizes), labels=[short(size) for size in _apart(sizes)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda us, _: f"{us:,.0f}"))
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _apart(sizes: list[int]) -> list[int]:
    """Sizes whose labels do not touch: each at least 1.2 x the one before."""
    kept = [sizes[0]]
    for size in sizes[1:]:
        if size >= 1.2 * kept[-1]:
            kept.append(size)
    return kept


def short(n: int) -> str:
    return f"{n / 1000:.0f}k" if n >= 10000 else f"{n:,}"


# ---- tables --------------------------------------------------------------------------------------


def select(scaling: dict, axis: str, **setup) -> list[dict]:
    return [
        row
        for row in scaling["rows"]
        if row["axis"] == axis and all(row["setup"][key] == wanted for key, wanted in setup.items())
    ]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def us(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}"


def scaling_table(axis: str, field: str, name: str) -> Callable[[dict], str]:
    """Both cases side by side; AutoDeco with 1 and 2 threads, what stock does has one."""

    def make(results: dict) -> str:
        scaling = results["step-scaling"]
        threads = sorted({row["setup"]["n_threads"] for row in scaling["rows"]})
        header = [
            name,
            "logits",
            *[f"AutoDeco, {n} thread{'s' * (n > 1)}" for n in threads],
            "greedy",
            "temp + top-p + dist",
            "bytes to read",
            "plain read of them",
        ]
        return table(header, _scaling_rows(scaling, axis, field, threads)) + "\n\nµs a step, medians."

    return make


def _scaling_rows(scaling: dict, axis: str, field: str, threads: list[int]) -> Iterable[list[str]]:
    for first, *others in zip(*(select(scaling, axis, n_threads=n) for n in threads), strict=True):
        setup = first["setup"]
        n_bytes = first["memory_bytes"]["head_weights_read"] + 4 * setup["n_vocab"] * setup["n_rows"]
        for case in CASES:
            timed = first["cases"][case]
            ours = [us(row["cases"][case]["autodeco_us"]) for row in (first, *others)]
            yield [
                f"{setup[field]:,}", case, *ours, us(timed["greedy_us"]), us(timed["temp_top_p_us"]),
                f"{n_bytes / 1e6:.2f} MB", us(sweep_us(timed)),
            ]  # fmt: skip


def machine_table(results: dict) -> str:
    machine = results["step-scaling"]["machine"]
    return f"{one_line(machine)}; {', '.join(machine['flags'])}; {machine['system']}."


def step_table(results: dict) -> str:
    cases = results["step"]["cases"]
    rows = []
    for key, label, ratio in STEP_ROWS:
        cells = [label]
        for case in CASES:
            low, high = cases[case]["quartiles"][f"{key}_us"]
            ours = f"{cases[case][ratio]:.3f}" if ratio else ""
            cells += [f"{us(cases[case][f'{key}_us'])} ({us(low)} to {us(high)})", ours]
        rows.append(cells)
    sweeps = [["", f"{cases[case]['ratio_vs_sweep']:.2f}"] for case in CASES]
    rows.append(["both plain reads", *sweeps[0], *sweeps[1]])
    header = ["", "peaked, µs (quartiles)", "AutoDeco / it", "flat, µs (quartiles)", "AutoDeco / it"]
    return table(header, rows)


def batch_table(results: dict) -> str:
    """Least times of bench/rows.py: one row and many with each number of threads."""
    rows = results["rows"]["rows"]
    counts = sorted({row["rows"] for row in rows})
    found = {(row["n_vocab"], row["case"], row["threads"], row["rows"]): row for row in rows}
    header = ["vocabulary", "logits", "threads", "1 row, µs", *[f"{n} / 1" for n in counts[1:]]]
    lines = [
        [f"{n_vocab:,}", case, str(threads), us(found[n_vocab, case, threads, 1]["us"])]
        + [f"{found[n_vocab, case, threads, n]['over_one_row']:.1f}" for n in counts[1:]]
        for n_vocab, case, threads in dict.fromkeys(key[:3] for key in found)
    ]
    return f"{table(header, lines)}\n\nLeast times, measured with a load of {results['rows']['load'][0]:.1f}."


RATIOS = (
    ("ratio_vs_greedy", "a token: AutoDeco / greedy"), ("ratio_vs_default", "a token: AutoDeco / default chain"),
    ("ratio_vs_temp_top_p", "a token: AutoDeco / temp + top-p + dist"), ("prompt_ratio", "the prompt: AutoDeco / greedy"),
    ("runtime_ratio", "a token: Python engine / C loop"), ("prompt_runtime_ratio", "the prompt: Python engine / C loop"),
)  # fmt: skip


def decode_table(results: dict) -> str:
    report = results["decode"]
    rates = table(
        ["", "tokens/s", "ms a token (quartiles)", "prompt tokens/s"],
        (
            [name, f"{report['tokens_per_second'][key]:.1f}", _milliseconds(report["token_us"][key]), f"{report['prompt_tokens_per_second'][key]:.1f}"]
            for key, name, _ in DECODE_ROWS
        ),
    )  # fmt: skip
    ratios = table(
        ["ratio", "of medians", "median of the paired ratios (95 % interval)"],
        ([label, f"{report[key]:.4f}", _paired(report["paired"][key])] for key, label in RATIOS),
    )
    memory = report["memory_bytes"]
    return (
        f"{rates}\n\n{ratios}\n\nMemory added: heads {memory['heads']:,} bytes, a row {memory['per_row']:,} bytes, "
        f"{memory['per_vocab_entry']:g} a vocabulary entry."
    )


def _milliseconds(us: dict) -> str:
    return f"{us['median'] / 1e3:.2f} ({us['q1'] / 1e3:.2f} to {us['q3'] / 1e3:.2f})"


def _paired(ratio: dict) -> str:
    return f"{ratio['median']:.4f} ({ratio['low']:.4f} to {ratio['high']:.4f})"


def speed_line(results: dict) -> str:
    """The README's own line."""
    report = results["decode"]
    return (
        f"- Speed: a 0.5B Q4_K_M model decodes in {report['ratio_vs_greedy']:.2f} times the time of greedy decoding and "
        f"{report['ratio_vs_temp_top_p']:.2f} times that of temperature + top-p\n  ([docs/performance.md](docs/performance.md))."
    )


# name in the page -> the results it needs, and how it is made
TABLES = {
    "machine": ("step-scaling", machine_table),
    "step": ("step", step_table),
    "vocabulary": ("step-scaling", scaling_table("vocabulary", "n_vocab", "vocabulary")),
    "hidden": ("step-scaling", scaling_table("hidden", "n_embd", "hidden size")),
    "rows": ("step-scaling", scaling_table("rows", "n_rows", "sequences")),
    "batch": ("rows", batch_table),
    "decode": ("decode", decode_table),
    "speed": ("decode", speed_line),
}


Tables = dict[str, tuple[str, Callable[[dict], str]]]


def fill(page: str, results: dict, tables: Tables = TABLES) -> str:
    """The page with every table renewed whose results are there."""
    for name, (needed, make) in tables.items():
        if needed in results:
            pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            text = make(results)
            page = pattern.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, nargs="+", required=True)
    parser.add_argument("--svg", type=Path, required=True)
    args = parser.parse_args()
    names = {needed for needed, _ in TABLES.values()}
    files = {name: args.results / f"{name}.json" for name in names}
    results = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    if "step-scaling" in results:
        draw(results["step-scaling"], args.svg)
    for page in args.page:
        page.write_text(fill(page.read_text(), results))


if __name__ == "__main__":
    main()
