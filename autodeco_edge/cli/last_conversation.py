"""The last conversation, as --continue finds it.

Owns its file, and the folder where what somebody wrote to a model is kept from everybody else.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError, MissingInputError
from ..text.chat import Conversation
from .config_file import state_dir


def private_folder() -> None:
    """Made if it is not there, for us alone: what somebody wrote to a model is nobody else's business. Raises OSError."""
    state_dir().mkdir(mode=0o700, parents=True, exist_ok=True)


def _path() -> Path:
    return state_dir() / "last-conversation.json"


def save_last(conversation: Conversation) -> None:
    """Raises OSError and what ``Conversation.save`` raises."""
    private_folder()
    conversation.save(_path())


def load_last() -> Conversation:
    """Raises MissingInputError where there is none, FormatError for a damaged one."""
    try:
        return Conversation.load(_path())
    except MissingInputError:
        raise MissingInputError("--continue: there is no last conversation; leave it out to start one") from None
    except FormatError as error:
        raise FormatError(f"--continue: {error}; or leave --continue out to start anew") from None
