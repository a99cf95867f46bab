"""Whether a word that nobody marked as a model is meant as one.

Owns the looks of paths and of model names as people write them (`llama3.2`, `gemma3:4b`, `Mistral-7B-Instruct`). Knows
neither what is on a disk nor the registry: it judges the word alone.
"""

from __future__ import annotations

import re

# Families whose name is no everyday word, and those that are only meant with a number behind them.
_FAMILIES = (
    "chatglm|codegemma|codellama|codestral|deepcoder|deepscaler|deepseek|devstral|exaone|gemma|glm|gpt-oss|internlm|kimi|"
    "llama|llava|magistral|minicpm|ministral|mistral|mixtral|moondream|nemotron|olmo|openchat|openelm|pixtral|qwen|qwq|"
    "smollm|smolvlm|stablelm|starcoder|tinyllama|wizardlm"
)
_NUMBERED = "aya|bloom|command-r|dolphin|falcon|gpt|granite|grok|hermes|lfm|orca|phi|solar|tulu|vicuna|yi|zephyr"
_PATH = re.compile(r"(?i)(?:\.{0,2}[/\\]|~|[a-z]:\\).*|.*\.(?:gguf|ggml|bin|safetensors|pth?|onnx)")
_NAME = re.compile(
    rf"""(?ix)
    (?:{_FAMILIES}) (?: [-_.:\d] [\w.:-]* )?
    | (?:{_NUMBERED}) -? v? \d [\w.:-]*  | command-r (?:\+|-plus)?
    | [a-z] [\w.-]* [-_:] (?: \d+x)? \d+ (?:\.\d+)? [bm] (?: [-_.:] [\w.:-]* )?   # a size: foo-7b-chat, foo:1.5b
    | [a-z] [\w.-]* : (?: latest | instruct | chat | (?:i?q\d|b?f(?:p)?(?:16|32)) [\w]* )   # a tag
    | [a-z] [\w.-]* - (?: instruct | chat | gguf | (?:i?q\d) [\w]* )
    """
)


def looks_like_model(word: str) -> bool:
    """Whether a person who types it alone means a file or a model, and not a prompt of one word."""
    return bool(_PATH.fullmatch(word) or _NAME.fullmatch(word))
