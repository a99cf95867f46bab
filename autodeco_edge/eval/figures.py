"""Pictures of a report: the expert's search (paper Figure 3), the ablation (Figure 4), and the frontier of the constants.

Owns what is drawn. Reads the report alone, so that a picture can be made again without a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from .report import ALL

ABLATION = ("default", "autodeco-p", "autodeco-t", "autodeco")
OURS, THEIRS, LIGHT = "#0072b2", "#777777", "#d0d0d0"  # told apart by colour-blind readers and in grey


def save_figures(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every picture that the report has the figures for, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "autodeco"  # the same report gives the same bytes
    group = report["groups"][ALL]
    figures = {}
    if report.get("expert"):
        figures["expert"] = _expert(report)
    if len([name for name in ABLATION if name in group["methods"]]) > 2:
        figures["ablation"] = _ablation(group["methods"])
    for name, part in report["groups"].items():
        if "frontier" in part:
            figures[f"frontier-{name.replace(':', '-')}"] = _frontier(name, part)
    return [_save(figure, folder / f"{name}.svg") for name, figure in figures.items()]


def _save(figure, path: Path) -> Path:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    return path


def _axes(n: int, width: float = 4.2, height: float = 3.0):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, n, figsize=(width * n, height), squeeze=False, layout="constrained")
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#eeeeee")
        ax.set_axisbelow(True)
    return figure, axes[0]


def _expert(report: Mapping[str, Any]):
    """Accuracy over T at P = 1, then over P at the best T; AutoDeco, which searched nothing, as a line."""
    tuned, methods = report["expert"], report["groups"][ALL]["methods"]
    figure, axes = _axes(2)
    best_t = tuned["best"][0]
    labels = ("temperature (top-p 1)", f"top-p (temperature {best_t:g})")
    for ax, points, label in zip(axes, (tuned["temperature"], tuned["top_p"]), labels, strict=True):
        x, y = zip(*points, strict=True)
        ax.plot(x, [100 * v for v in y], "o-", color=THEIRS, markersize=4, label="constant, chosen on the test set")
        if "autodeco" in methods:
            accuracy = methods["autodeco"]["accuracy"]
            ax.axhline(100 * accuracy["mean"], color=OURS, label="AutoDeco, no search")
            ax.axhspan(100 * accuracy["low"], 100 * accuracy["high"], color=OURS, alpha=0.15, linewidth=0)
        ax.set_xlabel(label)
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _ablation(methods: Mapping[str, Any]):
    """Accuracy with neither head, one, the other and both."""
    names = [name for name in ABLATION if name in methods]
    labels = {"default": "T = 1, P = 1", "autodeco-t": "T head", "autodeco-p": "P head", "autodeco": "both heads"}
    figure, (ax,) = _axes(1)
    values = [methods[name]["accuracy"] for name in names]
    means = [100 * v["mean"] for v in values]
    errors = [[100 * (v["mean"] - v["low"]) for v in values], [100 * (v["high"] - v["mean"]) for v in values]]
    colours = [LIGHT if name == "default" else OURS for name in names]
    ax.bar([labels[name] for name in names], means, yerr=errors, color=colours, capsize=4, width=0.6)
    for i, value in enumerate(means):
        ax.annotate(f"{value:.1f}", (i, value / 2), ha="center", color="black" if i == 0 else "white")
    ax.set_ylabel("accuracy, %")
    return figure


def _frontier(name: str, group: Mapping[str, Any]):
    """Every constant as a dot, the best ones joined, the methods by name."""
    found, m, markers = group["frontier"], group["coverage_of"], cycle("o*^sD")
    figure, (ax,) = _axes(1, 5.6, 4.0)
    points = list(found["points"].values())
    ax.scatter([100 * a for a, _ in points], [m * c for _, c in points], s=12, color=LIGHT, label="constants")
    ax.plot(
        [100 * a for a, _ in found["frontier"]],
        [m * c for _, c in found["frontier"]],
        color=THEIRS,
        linewidth=1,
        label="their frontier",
    )
    for method, row in group["methods"].items():
        if method in ABLATION[1:-1]:  # one head alone has a picture of its own
            continue
        x, y = 100 * row["accuracy"]["mean"], row["coverage"]["mean"]
        if method.partition("@")[0] == "autodeco":  # in the legend: they lie where it is crowded
            ax.scatter([x], [y], s=60, color=OURS, marker=next(markers), zorder=3, label=method)
        else:
            ax.scatter([x], [y], s=18, color=THEIRS, zorder=3)
            ax.annotate(method, (x, y), xytext=(-5, -2), textcoords="offset points", fontsize=7, ha="right")
    ax.set_xlabel("accuracy, %")
    ax.set_ylabel(f"distinct right solutions among {m}")
    ax.set_title(name, fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
