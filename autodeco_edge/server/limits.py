"""How much one server takes: the numbers, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import check_range

MAX_BODY = 2**20  # bytes
MAX_COMING = 2**26  # bytes of bodies that are on their way
MAX_CHUNKS = 2**13  # pieces that a body comes in: a twentieth of a second's work
MAX_TEXT = 2**22  # bytes of a text that tokens are turned into
MAX_PIECES = 2**16  # tokens that are given out with their texts
HEADER_BYTES = 16_384  # of the head of a request
HEADER_SECONDS = 10.0  # until the whole head of a request has come
BODY_SECONDS = 30.0  # until its body has
SEND_SECONDS = 30.0  # that a reader may leave what was sent to it
PING_SECONDS = 15.0
MAX_CONNECTIONS = 512


@dataclass(frozen=True)
class ServerLimits:
    """
    parallel    replies drawn at once
    queue       choices that wait beside them; more are turned away with 429
    max_tokens  of a reply, -1 = to the end of the context
    seconds     that a reply may be drawn for
    drain       seconds for what runs when the server is told to end

    Raises UsageError outside the ranges.
    """

    parallel: int = 4
    queue: int = 64
    max_tokens: int = -1
    seconds: float = 600.0
    drain: float = 8.0

    def __post_init__(self) -> None:
        check_range("--parallel", self.parallel, 1, 255)
        check_range("--queue", self.queue, 0, 100_000)
        check_range("--max-tokens", self.max_tokens, -1, 2**31 - 1, "-1 = to the end of the context")
        check_range("--max-seconds", self.seconds, 0.1, 86_400.0)
        check_range("--drain-seconds", self.drain, 0.0, 3600.0)
