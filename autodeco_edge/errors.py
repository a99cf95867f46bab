"""Every error that autodeco-edge raises on purpose, drawn as one tree.

Owns the exception classes and their process exit codes (sysexits.h). Knows nothing
of where an error comes from. The command line prints ``str(error)`` as one line and
exits with ``error.exit_code``; a library user catches ``AutodecoError``.

    AutodecoError                  1   anything else raised on purpose
    |-- UsageError                 2   an option or argument out of its range
    |-- FormatError               65   a file that is damaged or not of the expected kind
    |   |-- NoHeadsError          65   a sound GGUF that holds no AutoDeco heads
    |   |-- MismatchError         65   heads that do not belong to this base model
    |   |-- DamagedModelError     65   of Llama(...), and a ValueError, as in llama_cpp
    |-- MissingInputError         66   an input file or folder that is not there
    |   |-- MissingModelError     66   of Llama(...), and a ValueError, as in llama_cpp
    |-- ContextOverflowError      65   a prompt that does not fit the context window
    |-- OutOfMemoryError          71
    |-- OutputError               73   an output that cannot be created
    |-- StorageError              74   a read or a write that failed half way (disk full)
    |-- BusyError                 75   an engine or a file in use by somebody else
"""

from __future__ import annotations

from numbers import Real


class AutodecoError(Exception):
    """Root of the tree. The message is one line: what, allowed, got, next step."""

    exit_code = 1


class UsageError(AutodecoError):
    """An option or argument is out of its range."""

    exit_code = 2


class FormatError(AutodecoError):
    """A file is damaged, or is not of the expected kind."""

    exit_code = 65


class NoHeadsError(FormatError):
    """A sound GGUF that holds no AutoDeco heads."""


class MismatchError(FormatError):
    """The heads do not belong to this base model."""


class ContextOverflowError(AutodecoError):
    """The prompt does not fit the context window."""

    exit_code = 65


class MissingInputError(AutodecoError):
    """An input file or folder is not there."""

    exit_code = 66


class DamagedModelError(FormatError, ValueError):
    """``Llama(...)`` of a file that is no model: programs written for llama_cpp catch ValueError."""


class MissingModelError(MissingInputError, ValueError):
    """``Llama(...)`` of a model that is not there: programs written for llama_cpp catch ValueError."""


class OutOfMemoryError(AutodecoError):
    """Memory for a model or a context could not be had."""

    exit_code = 71


class OutputError(AutodecoError):
    """An output cannot be created at the place asked for."""

    exit_code = 73


class StorageError(AutodecoError):
    """A read or a write failed half way."""

    exit_code = 74


class BusyError(AutodecoError):
    """An engine or a file is in use by somebody else."""

    exit_code = 75


def check_range(name: str, value: float, low: float, high: float, hint: str = "") -> None:
    """Raises UsageError unless ``value`` is a number and low <= value <= high; ``hint`` says what the limits mean."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise UsageError(
            f"{name}: allowed {_number(low)} to {_number(high)}{f' ({hint})' if hint else ''}; got {_number(value)}"
        )


def _number(x: float) -> str:
    if not isinstance(x, Real):
        return repr(x)
    return str(x) if isinstance(x, int) else f"{x:g}"
