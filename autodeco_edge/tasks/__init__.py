"""What an evaluation or a data collector asks a model to solve, and how an answer is judged.

    load_task(name or file)   -> Task of Problems
    Verifier().check(pairs)   -> Verdicts

Knows no model, no decoder and no statistics.
"""

from .problem import DEMO, MANY_ANSWERS, Problem
from .task import NAMES, Task, load_task
from .verifier import Verdict, Verifier

__all__ = ["DEMO", "MANY_ANSWERS", "NAMES", "Problem", "Task", "Verdict", "Verifier", "load_task"]
