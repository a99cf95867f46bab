"""Open writing: prompts without a right answer, and a rule for what is well formed.

    problems(name, seed, split)  -> Problems
    judge(problem, completion)   -> (well formed, key)

How much replies differ, and how good another model finds them, is `eval/diversity.py`. Knows no model.
"""

from .forms import ANY, NAMES, PREFIX, judge, problems

__all__ = ["ANY", "NAMES", "PREFIX", "judge", "problems"]
