"""What a grammar costs beside the step: the mask of a token, its making and its application, at a real vocabulary.

    python bench/grammar_mask.py ggml-vocab-qwen2.gguf

Milliseconds of the calling thread's own processor time, over the tokens of a document that the grammar allows.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np

from autodeco_edge.engine.cpu import extra_buffers_safe
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.library import log  # noqa: F401  llama.cpp's log is ours before a model is opened
from autodeco_edge.engine.mask import GrammarMask, tokenizer_of
from tests.support.grammars import JSON

DOCUMENT = {
    "name": "Ada Lovelace", "age": 36, "tags": ["math", "the first programmer of all"], "ok": True,
    "address": {"street": "12 St James Square", "city": "London"}, "note": 'wrote a note, longer than the paper; "on machines".',
}  # fmt: skip
TEXT = {"type": "string"}
GRAMMARS = {
    "any object": Grammar.from_schema({"type": "object"}),
    "schema": Grammar.from_schema({"type": "object", "properties": {
        "name": TEXT, "age": {"type": "integer", "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}},
        "ok": {"type": "boolean"}, "address": {"type": "object", "properties": {"street": TEXT, "city": {"type": "string", "maxLength": 100}}},
        "note": {"type": "string", "maxLength": 200}}}),
    "regex": Grammar.from_regex(r"(.|\n)*"),
    "GBNF of strings": Grammar.from_text('root ::= "{" [^}]* ("}" [^}]*)*'),
    "GBNF of JSON": Grammar.from_text(JSON),
    "GBNF of nodes": Grammar.from_text('root ::= (text | node)+\nnode ::= "[" (text | node)* "]"\ntext ::= [^\\[\\]]+'),
}  # fmt: skip


def open_vocabulary(path: str):
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = extra_buffers_safe()
    params.vocab_only = True
    return llama_cpp.llama_model_load_from_file(path.encode(), params)


def ids_of(vocab, text: str) -> list[int]:
    data = text.encode()
    ids = (llama_cpp.llama_token * (len(data) + 8))()
    return list(ids[: llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), False, False)])


def main(path: str) -> None:
    class Owner:
        pass

    model, owner = open_vocabulary(path), Owner()
    vocab = llama_cpp.llama_model_get_vocab(model)
    start = time.thread_time()
    n_vocab = tokenizer_of(owner, vocab).vocab_size
    print(f"V = {n_vocab}; vocabulary made once in {time.thread_time() - start:.2f} s")
    data = (llama_cpp.llama_token_data * n_vocab)()
    for i, entry in enumerate(data):
        entry.id = i
    candidates = llama_cpp.llama_token_data_array(data=data, size=n_vocab, selected=-1, sorted=False)
    for name, grammar in GRAMMARS.items():
        guide = GrammarMask(grammar, owner, vocab)
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        guide(chain)
        times = []
        for _ in range(5):
            guide.reset()
            for token in ids_of(vocab, json.dumps(DOCUMENT)):
                start = time.thread_time()
                guide.prepare()
                middle = time.thread_time()
                llama_cpp.llama_sampler_apply(chain, candidates)
                end = time.thread_time()
                guide.accept(token)
                times.append((middle - start + time.thread_time() - end, end - middle))
        made, applied = np.array(times).T * 1e3
        print(
            f"{name:16} {made.mean() + applied.mean():.3f} ms a token: mask {made.mean():.3f} (median {np.median(made):.3f}, "
            f"largest {made.max():.2f}), applied {applied.mean():.3f}; {len(times)} tokens"
        )
        llama_cpp.llama_sampler_free(ctypes.cast(chain, llama_cpp.llama_sampler_p_ctypes))
    llama_cpp.llama_model_free(model)


if __name__ == "__main__":
    main(sys.argv[1])
