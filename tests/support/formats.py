"""Formats of reasoning as models write them: a template's end, the reply after it, and what of it is thought and answer.

Owns the cases; each becomes a model that says the reply (chain.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .chain import write_chain

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


def write_format(path: Path, f: Format) -> Path:
    return write_chain(path, last_token(f), f.reply, control=f.control, template=f.template)
