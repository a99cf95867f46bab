"""Reasoning formats: what is hidden, what is shown, and what a conversation keeps, with models that write each format."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass

import pytest

from autodeco_edge.cli.interrupts import Interrupts
from autodeco_edge.cli.options import RunOptions
from autodeco_edge.cli.session import Session
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.text.chat import Conversation
from autodeco_edge.text.reasoning import TAGS, Reasoning
from autodeco_edge.text.streaming import Channels
from tests.support.chain import write_chain
from tests.support.llama_source import llama_source

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"

# Written for this test after the format's public description: the checks of OpenAI's template, and its two fields.
HARMONY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if '<|channel|>' in m.content %}{{ raise_exception('pass analysis in thinking') }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
CHANNELS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>")
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@dataclass(frozen=True)
class Format:
    """A template's end, the reply after its last character, the marks that are control tokens."""

    template: str
    reply: tuple[str, ...]
    control: tuple[str, ...] = ()
    answer: str = "Four."
    thought: str = "two and two"


FORMATS = {
    "gpt-oss": Format(HARMONY, ("<|channel|>", "analysis", "<|message|>", "two and two", "<|end|>", FINAL, "Four.", "<|return|>"), CHANNELS),
    "gpt-oss, answer alone": Format(HARMONY, ("<|channel|>", "final", "<|message|>", "Four."), CHANNELS, thought=""),
    "gpt-oss, preamble": Format(HARMONY, ("<|channel|>", "commentary", "<|message|>", "One moment.", "<|end|>", FINAL, "Four."), CHANNELS, "One moment.\n\nFour.", ""),
    "gpt-oss, no channels": Format(HARMONY, ("Four.",), CHANNELS, thought=""),
    "muse": Format(HARMONY.replace("'pass analysis in thinking'", "'to=self'").replace("<|channel|>final", " to=user").replace("'<|channel|>'", "'<|start|>'"),
                   (" to=self", "<|message|>", "two and two", "<|eom|>", "<|start|>assistant to=user<|message|>", "Four."), ("<|start|>", "<|message|>", "<|eom|>", "<|eot|>")),
    "think": Format(TURNS + "<assistant>", ("<think>", "two and two", "</think>", "\n", "Four.")),
    "think, opened by the template": Format(TURNS + "<assistant><think>{{ '\n' }}", ("two and two", "</think>", "Four.")),
    "think, opened and closed by the template": Format(TURNS + "<assistant><think>\n\n</think>{{ '\n\n' }}", ("Four.",), thought=""),
    "think as control tokens": Format(TURNS + "<assistant>", ("<think>", "two and two", "</think>", "Four."), ("<think>", "</think>")),
    "magistral": Format(TURNS + "[/INST]", ("[THINK]", "two and two", "[/THINK]", "Four."), ("[THINK]", "[/THINK]")),
    "command": Format(TURNS + "<|CHATBOT_TOKEN|>", ("<|START_THINKING|>", "two and two", "<|END_THINKING|>", "<|START_RESPONSE|>", "Four.", "<|END_RESPONSE|>"),
                      ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")),
    "command, opened by the template": Format(TURNS + "<|START_THINKING|>", ("two and two", "<|END_THINKING|>", "<|START_TEXT|>", "Four.", "<|END_TEXT|>"),
                      ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>", "<|END_TEXT|>")),
    "seed": Format("{% set t = '<seed:think>' %}" + TURNS + "<assistant>", ("<seed:think>", "two and two", "</seed:think>", "Four.")),
    "minimax": Format("{% set t = '<mm:think>' %}" + TURNS + "<assistant>", ("<mm:think>", "two and two", "</mm:think>", "Four.")),
    "granite 3.3": Format("{# <think></think> <response></response> #}" + TURNS + "<assistant>", ("<think>", "two and two", "</think>", "<response>", "Four.", "</response>")),
    "granite 3.2": Format("{# Here is my thought process: Here is my response: #}" + TURNS + "<assistant>", ("Here is my thought process:", "two and two", "Here is my response:", "Four.")),
    "apriel": Format("{# [BEGIN FINAL RESPONSE] #}" + TURNS + "Here are my reasoning steps:{{ '\n' }}", ("two and two", "[BEGIN FINAL RESPONSE]", "Four.", "[END FINAL RESPONSE]")),
    "gemma 4": Format("{# <|channel>thought #}" + TURNS + "<model>", ("<|channel>", "thought", "two and two", "<channel|>", "Four."), ("<|channel>", "<channel|>")),
    "apertus": Format(TURNS + "<assistant>", ("<|inner_prefix|>", "two and two", "<|inner_suffix|>", "Four."), ("<|inner_prefix|>", "<|inner_suffix|>")),
    "exaone": Format("{# <thought> #}" + TURNS + "<assistant>", ("<thought>", "two and two", "</thought>", "Four.")),
    "solar": Format("{# <|begin|>assistant<|think|><|end|> #}" + TURNS + "<|begin|>assistant", ("<|think|>", "two and two", "<|end|><|begin|>assistant<|content|>", "Four."), ("<|think|>",)),
    "kimi k3": Format("{# <|open|> #}" + TURNS + "<|open|>think<|sep|>", ("two and two", "<|close|>", "think<|sep|><|open|>response<|sep|>", "Four."), ("<|open|>", "<|close|>", "<|sep|>")),
    "none": Format(TURNS + "<assistant>", ("Four.",), thought=""),
    "another's marks": Format(TURNS + "<assistant>", ("Four [THINK] three [/THINK].",), answer="Four [THINK] three [/THINK].", thought=""),
}  # fmt: skip


def last_token(f: Format) -> str:
    """The token that the prompt ends with: a mark, or the template's last character."""
    marks = [mark for mark in f.control if f.template.endswith(mark)]
    if marks or f.template.endswith("}}"):
        return marks[0] if marks else "\n"
    return "t" if "add_generation_prompt" in f.template else f.template[-1]


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def case(request, tmp_path):
    f = request.param
    path = write_chain(tmp_path / "m.gguf", last_token(f), f.reply, control=f.control, template=f.template)
    with Engine(path, n_ctx=1024, n_threads=1) as engine:
        yield f, engine


def talk(engine: Engine, options: RunOptions, turns: int = 1) -> Conversation:
    """So many turns, as a chat makes them."""
    conversation = Conversation()
    with Interrupts() as interrupts, closing(Session(engine, options, interrupts)) as session:
        for _ in range(turns):
            conversation.add("user", "What is 2 + 2?")
            trace = session.reply(session.conversation_ids(conversation), reuse_prefix=True)
            conversation.add("assistant", *session.answer(trace))
    return conversation


def test_hidden_thinking_leaves_the_answer(case, capsys):
    f, engine = case
    talk(engine, RunOptions(temp=0.0, hide_thinking=True, n=40))
    assert capsys.readouterr().out.strip() == f.answer


def test_shown_thinking_shows_both(case, capsys):
    f, engine = case
    talk(engine, RunOptions(temp=0.0, n=40))
    out = capsys.readouterr().out
    assert out.index(f.thought) <= out.index(f.answer)
    assert out.strip().endswith((f.answer, *(t for t in f.reply if t.startswith(("</", "[END", "<|END")))))


def test_three_turns_keep_answer_and_thought_apart(case):
    f, engine = case
    conversation = talk(engine, RunOptions(temp=0.0, n=40), turns=3)
    replies = [m for m in conversation.messages if m["role"] == "assistant"]
    kept = {"role": "assistant", "content": f.answer, **({"reasoning_content": f.thought} if f.thought else {})}
    assert replies == [kept] * 3


def test_other_control_tokens_stay_unseen(tmp_path, capsys):
    path = write_chain(tmp_path / "m.gguf", ">", ("Fo", "<|pad|>", "ur."), control=("<|pad|>",), template=TURNS + "<a>")
    with Engine(path, n_ctx=256, n_threads=1) as engine:
        talk(engine, RunOptions(temp=0.0, n=9))
    assert capsys.readouterr().out == "Four.\n"


def test_thought_without_an_end_is_kept_as_the_answer(tmp_path):
    """Templates refuse an empty message, and the next turn needs something to go on from."""
    path = write_chain(tmp_path / "m.gguf", "\n", ("two and two",), template=TURNS + "<a><think>{{ '\n' }}")
    with Engine(path, n_ctx=256, n_threads=1) as engine:
        assert talk(engine, RunOptions(temp=0.0, n=9)).messages[-1]["content"] == "two and two"


def test_block_that_is_closed_and_was_never_opened(tmp_path):
    path = write_chain(tmp_path / "m.gguf", ">", ("two and two", "</think>", "Four."), template=TURNS + "<a>")
    with Engine(path, n_ctx=256, n_threads=1) as engine:
        message = talk(engine, RunOptions(temp=0.0, n=9)).messages[-1]
    assert message == {"role": "assistant", "content": "Four.", "reasoning_content": "two and two"}


# ---- public templates ---------------------------------------------------------------------------


def public(name: str) -> str:
    source = llama_source()
    path = source / "models" / "templates" / name if source else None
    if path is None or not path.exists():
        pytest.skip("no source of llama.cpp at hand")
    return path.read_text(encoding="utf-8")


def test_openais_own_template_takes_the_history(tmp_path, capsys):
    f = FORMATS["gpt-oss"]
    path = write_chain(
        tmp_path / "m.gguf", "t", f.reply, control=CHANNELS, template=public("openai-gpt-oss-120b.jinja")
    )
    with Engine(path, n_ctx=2048, n_threads=1) as engine:
        conversation = talk(engine, RunOptions(temp=0.0, hide_thinking=True, n=40), turns=2)
    assert capsys.readouterr().out.split() == ["Four.", "Four."]
    assert conversation.messages[1]["content"] == "Four."


SIGNS = {
    "openai-gpt-oss-120b.jinja": None,
    "muse-glimmer.jinja": None,
    "Qwen-Qwen3-0.6B.jinja": "<think>",
    "mistralai-Ministral-3-14B-Reasoning-2512.jinja": "[THINK]",
    "Cohere2MoE.jinja": "<|START_THINKING|>",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja": "<|START_THINKING|>",
    "ByteDance-Seed-OSS.jinja": "<seed:think>",
    "MiniMax-M3.jinja": "<mm:think>",
    "tencent-Hy3.jinja": "<think:opensource>",
    "Apertus-8B-Instruct.jinja": "<|inner_prefix|>",
    "google-gemma-4-31B-it.jinja": "<|channel>thought",
    "upstage-Solar-Open-100B.jinja": "<|think|>",
    "Kimi-K3.jinja": "<|open|>think<|sep|>",
    "Apriel-1.6-15b-Thinker-fixed.jinja": "Here are my reasoning steps:",
    "meta-llama-Llama-3.1-8B-Instruct.jinja": "<think>",
}


@pytest.mark.parametrize("name, mark", SIGNS.items(), ids=SIGNS)
def test_a_template_tells_its_format(tmp_path, name, mark):
    reasoning = Reasoning.of(Model(write_chain(tmp_path / "m.gguf", ">", ("x",))), public(name))
    assert mark in [t.open for t in reasoning.tags] if mark else reasoning.tags == ()


# ---- the stream ---------------------------------------------------------------------------------


def parted(stream, text: str, rng: random.Random) -> tuple[str, str]:
    """(answer, thought) of a text that comes in random pieces."""
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(20)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    out = [p for i, piece in enumerate(pieces) for p in stream.feed(piece, i)] + stream.finish()
    return "".join(t for t, _, thought in out if not thought), "".join(t for t, _, thought in out if thought)


ANALYSIS = "<|channel|>analysis<|message|>"
HARMONIES = {
    "both": (f"{ANALYSIS}hm<|end|>{FINAL}ok", "ok", "hm"),
    "two thoughts": (f"{ANALYSIS}a<|end|><|start|>assistant{ANALYSIS}b<|end|>{FINAL}ok<|return|>", "ok", "ab"),
    "stray commentary": (f"<|channel|>commentary to=assistant{ANALYSIS}hm<|end|>{FINAL}ok", "ok", "hm"),
    "empty thought": (f"<|channel|>analysis<|end|>{FINAL}ok", "ok", ""),
    "no end": (f"{ANALYSIS}hm{FINAL}ok", "ok", "hm"),
    "thought alone": (f"{ANALYSIS}hm", "", "hm"),
    "cut header": (f"{ANALYSIS}hm<|end|><|start|>assis", "", "hm"),
    "plain": ("Four < five <|x|>", "Four < five <|x|>", ""),
    "plain that begins like a header": ("assistants are to=be", "assistants are to=be", ""),
    "tool call": ('<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>', '{"a": 1}', ""),
    "header without a body": ("<|start|>" + "x" * 900, "<|start|>" + "x" * 900, ""),
}


@pytest.mark.parametrize("text, answer, thought", HARMONIES.values(), ids=HARMONIES)
def test_channels_in_any_pieces(text, answer, thought):
    for seed in range(200):
        got, thoughts = parted(Channels(), text, random.Random(seed))
        assert got == answer
        assert thoughts.replace("<think>\n", "").replace("\n</think>\n\n", "") == thought


def test_text_of_random_marks_ends_and_loses_no_word():
    rng = random.Random(5)
    for _ in range(2000):
        words = [rng.choice([*Channels.MARKS, "analysis", "final", " ", "word"]) for _ in range(rng.randrange(12))]
        answer, thought = parted(Channels(rng.random() < 0.5), "".join(words), rng)
        assert (answer + thought).count("word") <= words.count("word")


@pytest.mark.parametrize("tag", TAGS, ids=[t.open for t in TAGS])
def test_every_tag_in_any_pieces(tag):
    reasoning = Reasoning((tag,), tag.wrappers, frozenset())
    text = f"{tag.open}hm{tag.close}{tag.wrappers[0] if tag.wrappers else ''}ok"
    for seed in range(50):
        answer, thought = parted(reasoning.stream("…"), text, random.Random(seed))
        assert answer == "ok" and tag.open + "hm" + tag.close in thought
    assert parted(reasoning.stream(f"x{tag.open}\n"), text.removeprefix(tag.open), random.Random(1))[0] == "ok"
    assert reasoning.split(text, "") == ("ok", "hm")
