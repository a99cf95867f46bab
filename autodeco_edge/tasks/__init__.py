"""What an evaluation or a data collector asks a model to solve, and how an answer is judged.

    load_task(name or file)   -> Task of Problems
    Verifier().check(pairs)   -> Verdicts

Knows no model, no decoder and no statistics.
"""

from .problem import DEMO, Problem
from .sources import has_many_answers, must_end
from .task import Task, is_generated, load_task
from .verifier import Verdict, Verifier

__all__ = [
    "DEMO",
    "Problem",
    "Task",
    "Verdict",
    "Verifier",
    "has_many_answers",
    "is_generated",
    "load_task",
    "must_end",
]
