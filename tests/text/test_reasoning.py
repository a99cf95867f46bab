"""Reasoning formats: what is hidden, what is shown, and what a conversation keeps, with models that write each format."""

from __future__ import annotations

import random
from contextlib import closing

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
from tests.support.formats import CHANNELS, FINAL, FORMATS, TURNS, write_format
from tests.support.llama_source import llama_source


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def case(request, tmp_path):
    f = request.param
    path = write_format(tmp_path / "m.gguf", f)
    with Engine(path, n_ctx=1024, n_threads=1) as engine:
        yield f, engine


def talk(engine: Engine, options: RunOptions, turns: int = 1) -> Conversation:
    """So many turns, as a chat makes them."""
    conversation = Conversation()
    with Interrupts() as interrupts, closing(Session(engine, options, interrupts)) as session:
        for _ in range(turns):
            conversation.add("user", "What is 2 + 2?")
            trace = session.reply(session.conversation_ids(conversation.messages), reuse_prefix=True)
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
