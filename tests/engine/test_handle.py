"""A turn that a Ctrl-C cut off at its very end is free again, for whoever handles that Ctrl-C too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from autodeco_edge.engine.handle import Handle
from autodeco_edge.errors import BusyError


@pytest.fixture
def handle() -> Iterator[Handle]:
    one = Handle("the thing", 7, lambda _pointer: None, exclusive=True)
    yield one
    one.close()


def interrupted(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose end is lost: SIGINT came between the body and the release."""

    def lost(self: Handle, call: object = None) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Handle, "release", lost)
    with handle.call():
        pass


def test_the_handler_of_an_interrupt_has_its_turn(handle, monkeypatch):
    """The traceback holds the lost call meanwhile."""
    try:
        interrupted(handle, monkeypatch)
    except KeyboardInterrupt as error:
        assert error.__traceback__ is not None
        with handle.call() as pointer:
            assert pointer == 7
    freed = []
    handle._free = freed.append
    handle.close()
    assert freed == [7]  # the lost user is not waited for


def test_a_call_inside_a_call_is_refused(handle):
    """Also where a generator that waits made the outer one, which is on no stack."""

    @contextmanager
    def turn() -> Iterator[None]:
        with handle.call():
            yield

    with handle.call(), pytest.raises(BusyError), handle.call():
        pass
    with turn(), pytest.raises(BusyError), handle.call():
        pass
    with handle.call() as pointer:
        assert pointer == 7
