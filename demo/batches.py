"""Owns the way from documents to batches: encoding, labels, grouping by length, right padding.

A document is never packed with another. It knows the tokenizer's ids and no model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedTokenizerFast

from autodeco_edge.tasks.demo import families

from .tokenizer import PAD_ID

IGNORE = -100
WIDTH_STEP = 16  # few distinct shapes
POOL_DOCUMENTS = 2000

Document = tuple[list[int], list[int]]  # token ids, labels (IGNORE outside the assistant's turns)
Batch = tuple[torch.Tensor, torch.Tensor]  # ids and labels, both int64 [rows, length]


def encode(turns: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> Document:
    """Context and target are encoded apart; the cut lies after a newline, so the ids are those of the whole text."""
    ids, labels = [], []
    pieces = tokenizer([text for pair in turns for text in pair], add_special_tokens=False)["input_ids"]
    for i, piece in enumerate(pieces):
        ids += piece
        labels += piece if i % 2 else [IGNORE] * len(piece)
    return ids, labels


def batches(
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    weights: dict[str, float],
    slip_rate: Callable[[], float],
    batch_tokens: int,
    max_length: int,
    pool_documents: int = POOL_DOCUMENTS,
) -> Iterator[Batch]:
    """Endless batches of at most `batch_tokens` positions. `slip_rate()` is asked once a pool.

    A pool of documents is sorted by length, so that little is padded; its batches come in random order.
    """
    while True:
        rate = slip_rate()
        pool = [encode(families.training_document(rng, rate, weights), tokenizer) for _ in range(pool_documents)]
        pool = sorted((doc for doc in pool if len(doc[0]) <= max_length), key=lambda doc: len(doc[0]))
        groups = list(_groups(pool, batch_tokens))
        rng.shuffle(groups)
        for group in groups:
            yield _collate(group)


def _padded(length: int) -> int:
    return -(-length // WIDTH_STEP) * WIDTH_STEP


def _groups(pool: list[Document], batch_tokens: int) -> Iterator[list[Document]]:
    """Runs of the sorted pool. The rest at its end would be a small, noisy step, so it is dropped."""
    group: list[Document] = []
    for doc in pool:
        if group and (len(group) + 1) * _padded(len(doc[0])) > batch_tokens:
            yield group
            group = []
        group.append(doc)


def _collate(group: list[Document]) -> Batch:
    """Right padding: causal attention never looks at it, so no mask is needed."""
    width = _padded(max(len(ids) for ids, _ in group))
    ids = torch.tensor([ids + [PAD_ID] * (width - len(ids)) for ids, _ in group])
    labels = torch.tensor([labels + [IGNORE] * (width - len(labels)) for _, labels in group])
    return ids, labels
