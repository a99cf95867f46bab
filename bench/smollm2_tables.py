"""The tables of the real model in docs/results.md, from bench/results/smollm2-*.json.

Owns their form. `make results` calls it through results.py, and draws no sample.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from bench.plot import table  # noqa: E402

HEADS = "replay-0"
NAMES = {
    HEADS: "**heads of the package**",
    "autodeco": "the same heads, in the runtime",
    "likelihood-0": "heads, official loss",
    "reward-all-0": "heads, reward on a card",
    "reward-all-from-likelihood-0": "heads, reward on a card after the official loss",
    "1/1": "1/1, the paper's default",
    "0.2/0.9": "0.2/0.9, the model's card",
    "0.8/0.95": "0.8/0.95, as in llama.cpp",
    "reward-write-0": "heads trained on open writing alone",
    "reward-many-0": "heads trained on many answers alone",
    "reward-exact-0": "heads trained on one answer alone",
    "autodeco@write": "heads trained on open writing alone, in the runtime",
    "turn": "turn: T by entropy",
    f"{HEADS} T": "their T alone",
    f"{HEADS} P": "their P alone",
    "min-p 0.05": "min-p 0.05 at T = 1",
    "dynatemp 0.5-1.5": "dynatemp 0.5 to 1.5",
    "min-p": "min-p 0.05 at T = 1",
    "dynatemp": "dynatemp 0.5 to 1.5",
}
SPREAD = {"write": "1 - self-BLEU of 4", "many": "distinct right of 16", "exact": "distinct right of 16"}


def name_of(method: str, own_mean: str = "") -> str:
    name = method.removesuffix(" here")
    known = f"{name}, their own mean (MeanShift)" if name == own_mean else NAMES.get(name, name)
    return known if name == method else f"{known}, in the runtime"


def interval(x: Mapping[str, float] | None, scale: float = 1, digits: int = 3, *, sign: bool = False) -> str:
    if x is None:
        return ""
    plus = "+" if sign else ""
    mean, low, high = (f"{scale * x[key]:{plus}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def group_table(group: str, results: Mapping[str, Any]) -> str:
    """Rows by accuracy; what has not every problem says how many."""
    found = results["smollm2-table"][group]
    header = ["method", "replies", "accuracy, %", "heads - it, points", SPREAD[group], "heads - it", "pass@16, %"]
    rows = []
    for name, row in sorted(found["methods"].items(), key=lambda item: -item[1]["accuracy"]["mean"]):
        n, lead = row["accuracy"]["n_problems"], {} if name == HEADS else row["heads_minus_it"]
        some = "" if n == found["n_problems"] else f", {n} problems"
        spread = row.get("spread")
        at = row["pass_at"].get("16")
        rows.append(
            [
                f"{name_of(name, found.get('mean_shift', ''))}{', the best constant here' if name == found['oracle'] else ''}",
                f"{row['replies']}{some}",
                interval(row["accuracy"], 100, 1),
                interval(lead.get("accuracy"), 100, 1, sign=True),
                f"{spread['mean']:.3f}" if spread else "",
                interval(lead.get("spread"), sign=True),
                f"{100 * at:.1f}" if at is not None else "",
            ]
        )
    outside = [f"Outside the frontier of the six constants: {interval(found['outside'], sign=True)}."]
    if found.get("outside_with_mean_shift"):
        both = found["outside_with_mean_shift"], found["outside_without"]
        outside.append(
            f"With {found['mean_shift']} among them: {interval(both[0], sign=True)} ({both[0]['n_problems']} problems; "
            f"without it, on these: {interval(both[1], sign=True)})."
        )
    return f"{found['n_problems']} problems.\n\n{table(header, rows)}\n\n{' '.join(outside)}"


def everywhere_table(results: Mapping[str, Any]) -> str:
    found = results["smollm2-table"]["everywhere"]
    rows = [
        [
            name_of(name),
            f"{100 * row['accuracy']:.1f}",
            "" if name == HEADS else interval(row["heads_minus_it_accuracy"], 100, 1, sign=True),
            f"{row['spread']:.3f}" if "spread" in row else "",
            "" if name == HEADS else interval(row.get("heads_minus_it_spread"), sign=True),
        ]
        for name, row in sorted(found.items(), key=lambda item: -item[1]["accuracy"])
    ]
    return table(["one setting everywhere", "accuracy, %", "heads - it, points", "spread", "heads - it"], rows)


def quality_table(results: Mapping[str, Any]) -> str:
    found, own_mean = results["smollm2-quality"], results["smollm2-table"]["write"].get("mean_shift", "")
    header = ["method", "ln p of a token", "heads - it", "1 - self-BLEU of 4", "distinct-2"]
    rows = [
        [
            name_of(name, own_mean),
            interval(row["log_p"]),
            "" if name == HEADS else interval(row["heads_minus_it"], sign=True),
            f"{row['spread']['mean']:.3f}",
            f"{row['distinct_2']['mean']:.3f}",
        ]
        for name, row in sorted(found["methods"].items(), key=lambda item: -item[1]["log_p"]["mean"])
    ]
    return f"{found['n_problems']} requests, a reply each, first {found['tokens']} tokens.\n\n{table(header, rows)}"


def gym_tables(results: Mapping[str, Any]) -> str:
    found = results["smollm2-gym"]
    asked = [
        [f"`{family}`", f"{100 * share:.1f}", "yes" if family in found["chosen"] else ""]
        for family, share in found["right"].items()
    ]
    parts = [table(["family and settings", "right at T = 1, %", "within the rule"], asked)]
    if found["groups"]:
        group = found["groups"]["all"]
        rows = [
            [
                name_of(name) if name != "autodeco" else "**heads of the package**",
                f"{row['n_samples']}",
                interval(row["accuracy"], 100, 1),
                interval(group["differences"]["autodeco"].get(name, {}).get("accuracy"), 100, 1, sign=True),
            ]
            for name, row in sorted(group["methods"].items(), key=lambda item: -item[1]["accuracy"]["mean"])
        ]
        n = group["methods"]["autodeco"]["n_problems"]
        parts.append(
            f"{n} test problems of these:\n\n{table(['method', 'replies', 'accuracy, %', 'heads - it, points'], rows)}"
        )
    return "\n\n".join(parts)


def parity_table(results: Mapping[str, Any]) -> str:
    rows = []
    for label, file in (("SmolLM2-135M, Q4_1", "smollm2-parity"), ("Gemma-3-270M, Q4_K_M", "gemma3-parity")):
        for name, key in ((label, "quantised"), (f"{label.partition(',')[0]}, F32 made of it", "f32")):
            if file in results:
                of = results[file][key]
                rows.append([name, *(f"{of[k]:.1e}" for k in ("dT_median", "dT_largest", "dP_median", "dP_largest"))])
    return table(["file", "T, median", "T, largest", "P, median", "P, largest"], rows)


def fits_table(results: Mapping[str, Any]) -> str:
    """Runs of `autodeco-edge fit`, one a row."""
    names = {
        "demo-fit": "demo model",
        "smollm2-fit": "SmolLM2-135M, three kinds",
        "smollm2-recipe": "SmolLM2-135M, the built-in pool",
        "gemma3-fit": "Gemma-3-270M, base",
    }
    header = [
        "model",
        "asked / taken, min",
        "test problems",
        "1/1, %",
        "best constant",
        "heads, %",
        "heads - it",
        "written",
    ]
    rows = []
    for file, name in names.items():
        if file not in results:
            continue
        run, methods = results[file], results[file]["test"]["group"]["methods"]
        heads, constant = run["choose"]["heads"], run["choose"]["constant"]
        share = {key: f"{100 * row['accuracy']['mean']:.1f}" for key, row in methods.items()}
        rows.append(
            [
                name,
                f"{run['minutes']:g} / {run['seconds'] / 60:.1f}",
                str(methods[heads]["n_problems"]),
                share["1/1"],
                f"{constant}: {share[constant]} %",
                share[heads],
                interval(run["difference"], sign=True),
                "heads" if run["heads_beat_the_constant"] else "the constant",
            ]
        )
    return table(header, rows)


def first_token(results: Mapping[str, Any]) -> str:
    found = results["smollm2-first-token"]
    time, spread = found["first_token_s"], found["t_spread"]
    return (
        f"`{found['command']}`: first token {time['median']:.2f} s after the command (median of {len(spread)}; longest "
        f"{time['largest']:.2f} s), on {found['cores']} cores at load {found['load']:.1f}. T moves by {min(spread):.2f} to "
        f"{max(spread):.2f} within a reply of {max(found['tokens'])} tokens."
    )


def exact_table(results: Mapping[str, Any]) -> str:
    """What is known of syllogisms without a draw."""
    found, own_mean = results["smollm2-exact"], results["smollm2-table"]["exact"].get("mean_shift", "")
    names = {"heads": "**heads of the package**"}
    header = ["probability, %, mean of the problems", "runtime", "lab", "runtime - lab", "largest of a problem"]
    rows = [
        [
            f"{names.get(name, name_of(name, own_mean))}: {'first token is Yes' if key == 'yes' else 'right, in one of the four forms'}",
            *(
                interval(of[key][k], 100, 1, sign=k == "runtime_minus_lab")
                for k in ("runtime", "lab", "runtime_minus_lab")
            ),
            f"{100 * of[key]['largest']:.1f}",
        ]
        for name, of in found.items()
        if name != "problems"
        for key in ("yes", "right")
    ]
    return f"{found['problems']} syllogisms.\n\n{table(header, rows)}"


def seeds_table(results: Mapping[str, Any]) -> str:
    """Trainings beside each other, and how far seeds lie apart."""
    found = results["smollm2-seeds"]
    names = {
        "reward-all-0": "heads, reward on a card",
        "recipe-reward": "`fit` of an hour, its reward heads",
        "recipe-likelihood": "`fit` of an hour, its likelihood heads",
    }
    groups = list(found["replies"])
    header = ["heads", *(f"{g}, %" for g in groups), "mean, %", "reward on a card - it, mean, points", "mean T / P"]
    rows = [
        [
            names.get(name, f"official loss, {name.replace('-', ' ')}"),
            *(interval(row[g], 100, 1) for g in groups),
            f"{100 * row['all']['mean']:.1f}",
            interval(row["card_minus_it"]["all"], 100, 1, sign=True) if "card_minus_it" in row else "",
            "; ".join(f"{row['means'][g]['t']:.2f} / {row['means'][g]['p']:.2f}" for g in groups),
        ]
        for name, row in found["heads"].items()
    ]
    drawn = ", ".join(f"{found['problems'][g]} of {g} x {n}" for g, n in found["replies"].items())
    text = f"Problems x replies: {drawn}.\n\n{table(header, rows)}"
    if "between_seeds" in found:
        apart = found["between_seeds"]
        each = ", ".join(
            f"{g} {100 * apart[g]['sd']:.1f} (two seeds at most {interval(apart[g]['largest'], 100, 1, sign=True)})"
            for g in groups
        )
        text += f"\n\nStandard deviation between the three seeds, points: {each}; of the mean {100 * apart['all']['sd']:.1f}."
    return text


def efficiency_table(results: Mapping[str, Any]) -> str:
    """The paper's Table 3."""
    found = results["smollm2-efficiency"]
    work = found["operations"]
    header = [
        "prompt, tokens",
        "work of a token, MFLOP",
        "heads add",
        "memory, MB",
        "with heads",
        "prompt, s",
        "with heads",
        "a token, ms",
        "with heads",
    ]
    rows = []
    for n, of in sorted(found["lengths"].items(), key=lambda item: int(item[0])):
        base, heads = of["1/1"], of["heads"]
        flop = work["base"] + int(n) * work["attention"]
        cells = [
            f"{of_[key]:,.{digits}f}"
            for key, digits in (("rss_mb", 0), ("prompt_s", 2), ("token_ms", 2))
            for of_ in (base, heads)
        ]
        rows.append([f"{int(n):,}", f"{flop / 1e6:,.0f}", f"{100 * work['heads'] / flop:.2f} %", *cells])
    rounds = ", ".join(f"{len(of['1/1']['rounds'])} at {int(n):,}" for n, of in found["lengths"].items())
    return (
        f"{table(header, rows)}\n\n{found['tokens']} tokens behind each prompt, {found['threads']} threads; medians of "
        f"rounds, {rounds}."
    )


def why_table(results: Mapping[str, Any]) -> str:
    """Steering as it was drawn, and on the same words."""
    found = results["smollm2-steering-why"]
    rows = []
    for figure, name in (("temperature", "T"), ("top_p", "P")):
        for way in ("low", "high"):
            drawn, same = found["drawn"][figure][way], found["same_words"][figure][way]
            rows.append(
                [
                    f"{name}, {way}",
                    *(f"{100 * of['consistency']:.0f}" for of in (drawn, same)),
                    *(interval(of["difference"], sign=True) for of in (drawn, same)),
                    f"{drawn['spread']:.3f}",
                    f"{drawn['noise']:.3f}",
                    f"{same['spread']:.3f}",
                ]
            )
    header = [
        "command",
        "as asked, own replies, %",
        "same words, %",
        "change, own replies",
        "same words",
        "spread over prompts, own replies",
        "of it noise of four replies",
        "same words",
    ]
    text = f"{found['prompts']} prompts; own replies: four of each condition, same words: {found['replies']} without a command."
    return f"{text}\n\n{table(header, rows)}"


TABLES = {
    "smollm2-exact-shares": ("smollm2-exact", exact_table),
    "smollm2-seeds": ("smollm2-seeds", seeds_table),
    "smollm2-efficiency": ("smollm2-efficiency", efficiency_table),
    "smollm2-steering-why": ("smollm2-steering-why", why_table),
    "fits": ("gemma3-fit", fits_table),
    "smollm2-quality": ("smollm2-quality", quality_table),
    "smollm2-gym": ("smollm2-gym", gym_tables),
    "smollm2-write": ("smollm2-table", lambda results: group_table("write", results)),
    "smollm2-many": ("smollm2-table", lambda results: group_table("many", results)),
    "smollm2-exact": ("smollm2-table", lambda results: group_table("exact", results)),
    "smollm2-everywhere": ("smollm2-table", everywhere_table),
    "smollm2-parity": ("smollm2-parity", parity_table),
    "smollm2-first-token": ("smollm2-first-token", first_token),
}
