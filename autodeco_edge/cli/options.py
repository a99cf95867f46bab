"""What a user can say to `run`: every option, once.

Owns names, help and defaults, and what the options mean for the sampler and its filters. The parser, the
configuration file, `/set` and `autodeco-edge config` all read this class.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ..engine.drafts import DRAFT_MAX, DraftParams, check_draft
from ..engine.plain import NEUTRAL
from ..errors import UsageError, check_range
from .settings import Command, option, read_settings, takes

if TYPE_CHECKING:
    from ..engine.filters import FilterParams
    from ..engine.sampler import SamplingParams

# The options of NEUTRAL, left to themselves, are None: a model without heads is sampled by its own values instead.
CONTEXT_FULL = ("shift", "stop")
FORMS = ("t", "p", "entropy", "logprob", "off")
OFF = "off"  # of a range

# Options of every command that opens a model with heads, here and in serve.py.
HfOption = Annotated[
    str | None,
    option("-hf", "--hf-repo", help="Model on the Hugging Face Hub: user/repo[:QUANT].", show_default=False),
]
HeadsOption = Annotated[
    str | None,
    option("--heads", help="Heads: file or user/repo. [default: those inside the model]", show_default=False),
]
NoHeadsOption = Annotated[bool, option("--no-heads", help="Without heads, even where the model has some.")]
OfflineOption = Annotated[bool, option("--offline", help="Use what was downloaded before, and no network.")]
ThreadsOption = Annotated[int, option("-t", "--threads", help="Threads; 0 = one a physical performance core.")]
GpuLayersOption = Annotated[int, option("-ngl", "--gpu-layers", help="Layers on the GPU; -1 = all.")]
DraftOption = Annotated[
    str,
    option(
        "--draft",
        metavar="ngram|FILE|off",
        help="Guess several tokens ahead: from what was said before, or by a smaller GGUF. The same reply, sooner.",
    ),
]
DraftMaxOption = Annotated[int, option("--draft-max", help="Tokens of a guess at most.")]
DraftCostOption = Annotated[
    float | None,
    option(
        "--draft-cost",
        help="What a further row of a batch takes, as a share of one: how sure a guess has to be. Else it is measured.",
        show_default=False,
    ),
]
RpcOption = Annotated[
    str | None,
    option("--rpc", metavar="HOST:PORT,...", help="Workers that compute layers, too (rpc-worker).", show_default=False),
]
TemplateOption = Annotated[
    Path | None,
    option("--chat-template-file", help="Jinja template instead of the model's own.", show_default=False),
]
VerboseOption = Annotated[bool, option("-v", "--verbose", help="Show llama.cpp's log.")]


def check_computing(options: Any) -> None:
    """Raises UsageError for layers and drafts out of range, of every command that draws replies."""
    check_range("-ngl", options.gpu_layers, -1, 2**31 - 1, "-1 = all")
    check_draft(options.draft)
    DraftParams(options.draft_max, options.draft_cost)


@dataclass(frozen=True)
class RunOptions:
    """Defaults leave everything to the model and its heads."""

    groups: ClassVar[dict[str, str]] = {
        "Model": "words model hf heads no_heads offline preset n_ctx context_full threads gpu_layers rpc",
        "Reply": "n seed system stop grammar json_schema regex chat_template raw",
        "Heads": "heads_mode temp top_p temp_range top_p_range",
        "Sampling, as in llama.cpp": "min_p top_k repeat_penalty frequency_penalty presence_penalty repeat_last_n logit_bias",
        "Seeing it": "color_by hide_thinking trace trace_top as_json as_jsonl verbose",
        "Conversation": "resume history",
    }

    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [PROMPT]",
            help="The prompt; before it a model: a name, user/repo or a .gguf file. Piped text, all its lines, is put before the prompt; "
            "a lone - waits for it.",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str | None,
        option(
            "--preset",
            help="Options from the table of this name in the configuration file.",
            is_eager=True,
            callback=read_settings,
            show_default=False,
        ),
    ] = None

    model: Annotated[
        str | None,
        option("-m", "--model", help="GGUF file, name or user/repo. [default: the demo model]", show_default=False),
    ] = None
    hf: HfOption = None
    heads: HeadsOption = None
    no_heads: NoHeadsOption = False
    offline: OfflineOption = False

    heads_mode: Annotated[str, option("--heads-mode", help="Which heads apply: both, temp, top-p or none.")] = "both"
    n: Annotated[int, option("-n", "--max-tokens", help="Tokens at most; -1 = until the model ends.")] = -1
    seed: Annotated[int | None, option("--seed", help="Seed of the draw. [default: random]", show_default=False)] = None
    temp: Annotated[
        float | None,
        option(
            "--temp",
            help="Multiplies the predicted temperature; 0 = greedy. Without heads: the temperature.",
            show_default=False,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        option("--top-p", help="Multiplies the predicted top-p. Without heads: the top-p.", show_default=False),
    ] = None
    temp_range: Annotated[
        str,
        option(
            "--temp-range", metavar="LO:HI", help="Keeps the temperature within. [default: off]", show_default=False
        ),
    ] = OFF
    top_p_range: Annotated[
        str,
        option("--top-p-range", metavar="LO:HI", help="Keeps the top-p within. [default: off]", show_default=False),
    ] = OFF
    min_p: Annotated[
        float | None,
        option("--min-p", help="Drops tokens below this share of the likeliest; 0 = off.", show_default=False),
    ] = None
    top_k: Annotated[
        int | None, option("--top-k", help="Keeps the likeliest tokens only; 0 = off.", show_default=False)
    ] = None
    repeat_penalty: Annotated[
        float | None, option("--repeat-penalty", help="Above 1: against repetition. [default: off]", show_default=False)
    ] = None
    frequency_penalty: Annotated[float, option("--frequency-penalty", help="Against frequent tokens; 0 = off.")] = 0.0
    presence_penalty: Annotated[float, option("--presence-penalty", help="Against tokens used before; 0 = off.")] = 0.0
    repeat_last_n: Annotated[
        int | None,
        option(
            "--repeat-last-n",
            help="Tokens of the reply the penalties see; -1 = all. [default: 64]",
            show_default=False,
        ),
    ] = None
    logit_bias: Annotated[
        list[str] | None,
        option("--logit-bias", metavar="ID=BIAS", help="Added to a token's logit; repeatable.", show_default=False),
    ] = None
    grammar: Annotated[
        str | None,
        option("--grammar", help="Grammar of the reply, GBNF or Lark: a file or the text.", show_default=False),
    ] = None
    json_schema: Annotated[
        str | None, option("--json-schema", help="JSON schema of the reply: a file or the text.", show_default=False)
    ] = None
    regex: Annotated[
        str | None, option("--regex", help="Regular expression that the whole reply matches.", show_default=False)
    ] = None
    stop: Annotated[
        list[str] | None,
        option("--stop", metavar="TEXT", help="Ends the reply before this text; repeatable.", show_default=False),
    ] = None

    system: Annotated[str | None, option("--system", help="System message.", show_default=False)] = None
    chat_template: TemplateOption = None
    raw: Annotated[bool, option("--raw", help="No chat template: the prompt as it is.")] = False
    resume: Annotated[bool, option("--continue", help="Go on with the last conversation.")] = False
    history: Annotated[bool, option("--history/--no-history", help="Remember lines and the last conversation.")] = True

    n_ctx: Annotated[int, option("-c", "--ctx-size", help="Context in tokens; 0 = the model's, at most 4096.")] = 0
    context_full: Annotated[
        str,
        option(
            "--context-full",
            help="When a conversation outgrows the context: shift leaves out the oldest turns, stop ends it.",
        ),
    ] = "shift"
    threads: ThreadsOption = 0
    gpu_layers: GpuLayersOption = 0
    draft: DraftOption = "off"
    draft_max: DraftMaxOption = DRAFT_MAX
    draft_cost: DraftCostOption = None
    rpc: RpcOption = None

    as_json: Annotated[bool, option("--json", help="Print one JSON object at the end instead of the text.")] = False
    as_jsonl: Annotated[bool, option("--jsonl", help="Print one JSON object a token instead, then a summary.")] = False
    trace: Annotated[
        Path | None, option("--trace", help="Also write what --jsonl prints to this file.", show_default=False)
    ] = None
    trace_top: Annotated[
        int, option("--trace-top", help="Also write so many of the likeliest tokens, 0 to 20: slower, same tokens.")
    ] = 0
    color_by: Annotated[str, option("--color-by", help="Tint tokens on a terminal: t, p, entropy, logprob or off.")] = (
        "off"
    )
    hide_thinking: Annotated[bool, option("--hide-thinking", help="Leave thinking blocks out.")] = False
    cpu_draw: Annotated[
        bool, option("--cpu-draw", help="Draw outside llama.cpp's graph, to compare: same tokens, slower.")
    ] = False
    verbose: VerboseOption = False

    # ---- what they mean ---------------------------------------------------------------------

    @property
    def form(self) -> str:
        return "json" if self.as_json else "jsonl" if self.as_jsonl else "text"

    def check(self) -> None:
        """Raises UsageError for what cannot be meant, before anything is loaded."""
        if self.as_json and self.as_jsonl:
            raise UsageError("--json and --jsonl exclude each other; choose one")
        check_range("-n", self.n, -1, 2**31 - 1, "-1 = until the end")
        check_computing(self)
        if self.trace is not None and _is_folder(self.trace):
            raise UsageError(f"--trace {self.trace}: is a folder; give a file name")
        if self.color_by not in FORMS:
            raise UsageError(f"--color-by: allowed {', '.join(FORMS)}; got '{self.color_by}'")
        check_range("--trace-top", self.trace_top, 0, 20, "0 = none")
        if self.context_full not in CONTEXT_FULL:
            raise UsageError(f"--context-full: allowed {', '.join(CONTEXT_FULL)}; got '{self.context_full}'")
        if self.heads and self.no_heads:
            raise UsageError("--heads and --no-heads exclude each other; choose one")
        if "" in (self.stop or ()):
            raise UsageError("--stop: an empty text would stop at once; give at least one character")

    def given(self, name: str) -> bool:
        """Whether the user gave one of NEUTRAL."""
        return getattr(self, name) is not None

    def filled(self, values: Mapping[str, float] = MappingProxyType(NEUTRAL)) -> RunOptions:
        """With ``values`` in the place of those of NEUTRAL that were not given."""
        return replace(self, **{name: value for name, value in values.items() if not self.given(name)})

    def sampling(self) -> SamplingParams:
        """For options that are ``filled``, by themselves neutrally. Raises UsageError for a value out of its range."""
        from ..engine.sampler import SamplingParams

        self = self.filled()
        return SamplingParams(
            seed=secrets.randbits(32) if self.seed is None else self.seed,
            temperature=self.temp,
            top_p=self.top_p,
            min_p=self.min_p,
            heads_mode=self.heads_mode,
            logprobs=self.form != "text" or self.trace is not None or self.color_by == "logprob",
            top_logprobs=self.trace_top,
            temp_range=_limits("--temp-range", self.temp_range),
            top_p_range=_limits("--top-p-range", self.top_p_range),
        )

    def filters(self) -> FilterParams:
        """Raises UsageError for a value out of its range, FormatError for a grammar."""
        from ..engine.filters import FilterParams, read_grammar

        self = self.filled()
        return FilterParams(
            grammar=read_grammar(self.grammar, self.json_schema, self.regex),
            logit_bias=dict(_bias(text) for text in self.logit_bias or ()),
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repeat_last_n=self.repeat_last_n,
            top_k=self.top_k,
        )


def run_command() -> Any:
    """`run` as the parser knows it, its work left out."""
    parser = typer.Typer(add_completion=False)
    parser.command("run", cls=Command)(takes(RunOptions)(lambda ctx, **values: None))
    return typer.main.get_command(parser)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long for a name: writing it will say so
        return False


def _limits(name: str, text: str) -> tuple[float, float]:
    """(low, high) of "LO:HI"; either may be left out. (0, 0) for OFF."""
    if text.lower() == OFF:
        return 0.0, 0.0
    low, colon, high = text.partition(":")
    try:
        if colon:
            return float(low or 0), float(high or 0)
    except ValueError:
        pass
    raise UsageError(f"{name}: expected LO:HI, such as 0.3:1.2, or off; got '{text}'")


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise UsageError(f"--logit-bias: expected ID=BIAS, such as 13=-5; got '{text}'") from None
