"""Short questions of every day, with one right answer (`exact:`) or many (`many:`), and how an answer is read.

    problems(name, seed, split)  -> Problems, each asked once before any is asked in other words
    judge(problem, completion)   -> (right, key)

The lists of names in data/ are this project's own. Knows no model.
"""

from .families import FAMILIES, NAMES, has_many, judge, problems

__all__ = ["FAMILIES", "NAMES", "has_many", "judge", "problems"]
