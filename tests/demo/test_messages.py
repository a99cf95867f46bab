"""ChatML back to messages: every prompt of the recipe, there and back."""

from __future__ import annotations

import random

import pytest

from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import chat_prompt, turn
from demo.messages import messages


@pytest.mark.parametrize("family", families.FAMILIES)
def test_there_and_back(family):
    rng = random.Random(family)
    for _ in range(50):
        problem = families.sample(rng, family, held_out=False)
        found = messages(chat_prompt(problem), problem.solution)
        assert found[-1] == {"role": "assistant", "content": problem.solution}
        assert "".join(turn(m["role"], m["content"]) for m in found[:-1]) + "<|im_start|>assistant\n" == chat_prompt(
            problem
        )


@pytest.mark.parametrize("prompt", ["hello", "<|im_start|>user\nhello<|im_end|>\n", "x<|im_start|>assistant\n"])
def test_other_text_is_refused(prompt):
    with pytest.raises(ValueError, match="not ChatML"):
        messages(prompt, "x")
