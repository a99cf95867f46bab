"""``autodeco-edge bench step`` and ``bench decode``: AutoDeco against stock llama.cpp, in this very process;
``bench loss``: the fast training losses against the plain ones.

Owns the option names, their help and the tables. The work is in autodeco_edge.bench, imported inside each
command so that ``--help`` stays quick. The report goes to stdout, as a table or as one JSON object.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..io.printing import put

app = typer.Typer(
    name="bench", help="Time AutoDeco against stock llama.cpp, and its training losses.", no_args_is_help=True
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_RANGES = "Medians, [quartiles]; ratio: AutoDeco's median divided by the other's."


@app.command()
def step(
    n_vocab: Annotated[int, typer.Option("--n-vocab", help="Vocabulary size.")] = 151936,
    n_embd: Annotated[int, typer.Option("--n-embd", help="Hidden size.")] = 3584,
    threads: Annotated[int, typer.Option("--threads", "-t", help="Threads of the graph; stock sampling has one.")] = 1,
    type_: Annotated[str, typer.Option("--type", help="Heads' weights: f32, f16, bf16 or q8_0.")] = "f16",
    rows: Annotated[int, typer.Option("--rows", help="Sequences in one graph.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", help="Each runs every contender once.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """One sampling step on random heads and logits: the heads and the draw, without a model.

    Example: autodeco-edge bench step --n-vocab 128256 --n-embd 4096
    """
    from ..bench.step import StepSetup, run_step

    setup = StepSetup(n_vocab=n_vocab, n_embd=n_embd, n_threads=threads, outtype=type_, n_rows=rows, n_rounds=rounds)
    report = run_step(setup)
    put(json.dumps(report, indent=2) if as_json else _step_table(report))


@app.command()
def decode(
    model: Annotated[str, typer.Option("--model", "-m", help="GGUF file, or the name of a model.", show_default=False)],
    heads: Annotated[
        Path | None,
        typer.Option("--heads", metavar="HEADS.gguf", help="Default: those inside the model, or of its name."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", "-t", help="0: one a physical core.")] = 0,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Random tokens of the prompt.")] = 64,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens decoded behind it.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", help="Repetitions of both.")] = 3,
    busy: Annotated[
        bool, typer.Option("--busy", help="How threads wait, on a quiet and on a busy machine; needs no heads.")
    ] = False,
    waits: Annotated[
        str, typer.Option("--wait", help="With --busy: ways to wait (short, spin, sleep, spins), comma between.")
    ] = "spin,short",
    seconds: Annotated[float, typer.Option("--seconds", help="With --busy: of one turn.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Prompt and tokens on a model: every sampler in a context of its own, a token each in turn; and the Python engine
    against C.

    With --busy: tokens a second as llama.cpp's threads wait by themselves (spin), and as they wait here (short),
    alone on the machine and beside a busy loop on every other core.

    Example: autodeco-edge bench decode -m model.gguf --heads heads.gguf
    """
    from ..hub.resolve import find_file

    path, its_own = find_file(model)
    used = heads or its_own or "auto"
    if busy:
        from ..bench.busy import BusySetup, run_busy

        ways = tuple(wait.strip() for wait in waits.split(","))
        timing = BusySetup(waits=ways, seconds=seconds, n_rounds=rounds, n_threads=threads)
        report = run_busy(path, str(used), timing)
        put(json.dumps(report, indent=2) if as_json else _busy_table(report))
        return
    from ..bench.decode import DecodeSetup, run_decode

    setup = DecodeSetup(n_prompt=prompt_tokens, n_tokens=tokens, n_rounds=rounds, n_threads=threads)
    report = run_decode(path, used, setup)
    put(json.dumps(report, indent=2) if as_json else _decode_table(report))


@app.command()
def loss(
    n_vocab: Annotated[int, typer.Option("--n-vocab", help="Vocabulary size.")] = 151936,
    tokens: Annotated[int, typer.Option("--n-tokens", help="Rows of logits in one evaluation.")] = 32,
    threads: Annotated[int, typer.Option("--threads", "-t", help="Of the plain form; the fast one has one.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", help="Each runs both forms once.")] = 5,
    nemo: Annotated[bool, typer.Option("--nemo", help="The NeMo losses; default: the Hugging Face ones.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Training losses with their gradients in T and P: the fast form against sort, cumulative sum and autograd.

    Example: autodeco-edge bench loss --n-vocab 128256
    """
    from ..bench.loss import LossSetup, run_loss

    setup = LossSetup(n_vocab=n_vocab, n_tokens=tokens, n_threads=threads, n_rounds=rounds, nemo=nemo)
    report = run_loss(setup)
    put(json.dumps(report, indent=2) if as_json else _loss_table(report))


# ---- tables --------------------------------------------------------------------------------------

# key of the report, label, name of AutoDeco's ratio to it; bench/plot.py uses them too
STEP_ROWS = (
    ("autodeco", "AutoDeco", None),
    ("greedy", "greedy", "ratio_vs_greedy"),
    ("default_chain", "default chain", "ratio_vs_default"),
    ("temp_top_p", "temp + top-p + dist", "ratio_vs_temp_top_p"),
    ("dist", "dist alone", None),
    ("logits_sweep", "plain read of the logits", None),
    ("weights_sweep", "plain read of the heads", None),
    ("graph_overhead", "empty ggml graph", None),
    ("logits_copy", "llama.cpp's copy, stock", None),
    ("logits_pad", "llama.cpp's copy, in graph", None),
)
DECODE_ROWS = (
    ("autodeco", "AutoDeco", None),
    ("greedy", "greedy", "ratio_vs_greedy"),
    ("default_chain", "default chain", "ratio_vs_default"),
    ("temp_top_p", "temp + top-p + dist", "ratio_vs_temp_top_p"),
    ("runtime", "Python engine, AutoDeco", None),
    ("runtime_c_loop", "C loop in turn with it", "runtime_ratio"),
)
PAIRED_ROWS = (  # medians of the ratios of neighbours in time
    ("ratio_vs_greedy", "greedy"),
    ("ratio_vs_default", "default chain"),
    ("ratio_vs_temp_top_p", "temp + top-p + dist"),
    ("prompt_ratio", "greedy, the prompt"),
    ("runtime_ratio", "Python engine to C"),
    ("prompt_runtime_ratio", "Python to C, the prompt"),
)


def _head(report: dict, what: str) -> list[str]:
    from ..bench.machine import one_line

    stock = report["stock"]
    return [
        one_line(report["machine"]),
        what,
        f"temp + top-p at T {stock['temperature']}, P {stock['top_p']}. {_RANGES}",
    ]


def _step_table(report: dict) -> str:
    setup = report["setup"]
    lines = _head(
        report,
        f"vocabulary {setup['n_vocab']}, hidden size {setup['n_embd']}, {setup['outtype']} heads, "
        f"rows {setup['n_rows']}, threads {setup['n_threads']}, rounds {setup['n_rounds']}",
    )
    for name, case in report["cases"].items():
        lines += ["", f"{name + ' logits':<26}{'us':>10}  {'[quartiles]':<22}{'ratio':>8}"]
        for key, label, ratio in STEP_ROWS:
            low, high = case["quartiles"][f"{key}_us"]
            lines.append(_row(label, f"{case[f'{key}_us']:.1f}", f"[{low:.1f}, {high:.1f}]", case.get(ratio)))
        lines.append(_row("both plain reads", "", "", case["ratio_vs_sweep"]))
    return "\n".join([*lines, "", _memory_line(report["memory_bytes"])])


def _decode_table(report: dict) -> str:
    setup = report["setup"]
    lines = _head(
        report,
        f"{report['model']['description']}, vocabulary {report['model']['n_vocab']}, prompt {setup['n_prompt']}, "
        f"tokens {setup['n_tokens']}, rounds {setup['n_rounds']}, threads {setup['n_threads']}",
    )
    lines += ["", f"{'a token':<26}{'ms':>10}  {'[quartiles]':<22}{'ratio':>8}"]
    for key, label, ratio in DECODE_ROWS:
        lines.append(_times(label, report["token_us"][key], report.get(ratio)))
    lines += ["", f"{'the prompt':<26}{'ms':>10}  {'[quartiles]':<22}{'ratio':>8}"]
    prompt_ratios = {"greedy": "prompt_ratio", "runtime_c_loop": "prompt_runtime_ratio"}
    for key, label, _ in DECODE_ROWS:
        lines.append(_times(label, report["prompt_us"][key], report.get(prompt_ratios.get(key))))
    lines += ["", f"{'AutoDeco to it, in turn':<26}{'ratio':>10}  [95 % interval]"]
    for name, label in PAIRED_ROWS:
        paired = report["paired"][name]
        lines.append(f"{label:<26}{paired['median']:>10.4f}  [{paired['low']:.4f}, {paired['high']:.4f}]")
    if setup["n_rounds"] == 1:
        lines.append("of one round: a look, no measurement (--rounds)")
    return "\n".join([*lines, "", _memory_line(report["memory_bytes"]), _in_words(report["paired"])])


def _in_words(paired: dict) -> str:
    greedy, stock = (paired[f"ratio_vs_{name}"]["median"] for name in ("greedy", "temp_top_p"))
    return f"A token with AutoDeco takes {greedy:.2f} times as long as a greedy one, {stock:.2f} times as long as one drawn with temp + top-p."


def _busy_table(report: dict) -> str:
    from ..bench.machine import one_line

    setup = report["setup"]
    lines = [
        one_line(report["machine"]),
        f"{report['model']['description']}, threads {setup['n_threads']} ({report['thread_pool']}), rounds "
        f"{setup['n_rounds']} of {setup['seconds']:g} s, busy: {setup['n_loops']} loop(s) beside it",
        "tokens a second: median, [quartiles]; ratio: to llama.cpp's own way (spin), median of the rounds, [95 % interval]",
        "",
        f"{'machine':<10}{'threads':<12}{'tokens/s':>10}  {'[quartiles]':<22}{'ratio':>8}",
    ]
    for condition, rates in report["tokens_per_second"].items():
        for wait, rate in rates.items():
            ratio = report["paired"][condition].get(wait)
            known = f"{ratio['median']:>8.3f}  [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else ""
            quartiles = f"[{rate['q1']:.1f}, {rate['q3']:.1f}]"
            lines.append(f"{condition:<10}{wait:<12}{rate['median']:>10.1f}  {quartiles:<22}{known}".rstrip())
    return "\n".join(lines)


LOSS_COLUMNS = ("speedup", "mem_ratio", "max_rel_err_loss", "max_rel_err_grad")


def _loss_table(report: dict) -> str:
    from ..bench.machine import one_line

    setup = report["setup"]
    lines = [
        one_line(report["machine"]),
        f"vocabulary {setup['n_vocab']}, tokens {setup['n_tokens']}, {'NeMo' if setup['nemo'] else 'Hugging Face'} "
        f"losses, threads {setup['n_threads']}, rounds {setup['n_rounds']}",
        "ms: medians a token; MB: extra memory; errors: relative, against the plain form in float64, worst token",
        "",
        f"{'':<8}{'plain ms':>10}{'fast ms':>10}{'speedup':>10}{'plain MB':>10}{'fast MB':>10}{'ratio':>10}"
        f"{'loss err':>11}{'grad err':>11}",
    ]
    for name, case in report["cases"].items():
        ms, mb = case["token_ms"], {form: n / 1e6 for form, n in case["extra_bytes"].items()}
        lines.append(
            f"{name:<8}{ms['plain']['median']:>10.3f}{ms['fast']['median']:>10.3f}{case['speedup']:>10.2f}"
            f"{mb['plain']:>10.1f}{mb['fast']:>10.1f}{case['mem_ratio']:>10.4f}"
            f"{case['max_rel_err_loss']:>11.1e}{case['max_rel_err_grad']:>11.1e}"
        )
    speedup, memory, loss_error, grad_error = (report[key] for key in LOSS_COLUMNS)
    lines.append(f"{'worst':<28}{speedup:>10.2f}{memory:>30.4f}{loss_error:>11.1e}{grad_error:>11.1e}")
    return "\n".join(lines)


def _times(label: str, us: dict, ratio: float | None) -> str:
    return _row(label, f"{us['median'] / 1e3:.2f}", f"[{us['q1'] / 1e3:.2f}, {us['q3'] / 1e3:.2f}]", ratio)


def _row(label: str, value: str, quartiles: str, ratio: float | None) -> str:
    return f"{label:<26}{value:>10}  {quartiles:<22}{'' if ratio is None else f'{ratio:.3f}':>8}".rstrip()


def _memory_line(memory: dict) -> str:
    return (
        f"memory: heads {memory['heads']} bytes, a row {memory['per_row']} bytes "
        f"({memory['per_vocab_entry']:g} a vocabulary entry)"
    )
