"""A queue in which no caller waits for all of another's requests: callers take turns, each one's own in order.

Owns the order alone: no limit, no lock, no time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    def __init__(self) -> None:
        self._callers: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def put(self, caller: Hashable, item: T) -> None:
        self._callers.setdefault(caller, deque()).append(item)
        self._n += 1

    def get(self) -> T | None:
        """The next one, whose caller then goes to the end of the row; None where nothing waits."""
        if not self._callers:
            return None
        caller, items = next(iter(self._callers.items()))
        item = items.popleft()
        self._n -= 1
        self._callers.move_to_end(caller)
        if not items:
            del self._callers[caller]
        return item

    def remove(self, caller: Hashable, item: T) -> bool:
        """Whether it was still waiting."""
        items = self._callers.get(caller)
        if items is None or item not in items:
            return False
        items.remove(item)
        self._n -= 1
        if not items:
            del self._callers[caller]
        return True
