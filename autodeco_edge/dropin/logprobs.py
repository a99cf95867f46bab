"""The log-probabilities of a reply as OpenAI's completions have them, out of the Steps.

Owns the shape. The tokens are those of the text that is returned: a stop string, which is not, ends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .llama import Llama


def logprobs_of(llama: Llama, text: str, n_top: int) -> dict[str, Any]:
    """{"tokens", "token_logprobs", "top_logprobs", "text_offset"}, a list each; n_top: of the likeliest beside a token."""
    found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    at, end = 0, len(text.encode())
    data = b""
    for step in llama.steps:
        piece = llama.detokenize([step.id])
        if at >= end or not piece:
            break
        top = {_text(llama, token): logprob for token, logprob in step.top[:n_top]}
        token = piece.decode("utf-8", "replace")
        found["tokens"].append(token)
        found["token_logprobs"].append(step.logprob)
        found["top_logprobs"].append({**top, token: step.logprob})
        found["text_offset"].append(len(data.decode("utf-8", "ignore")))
        data += piece
        at += len(piece)
    return found


def _text(llama: Llama, token: int) -> str:
    return llama.detokenize([token]).decode("utf-8", "replace")
