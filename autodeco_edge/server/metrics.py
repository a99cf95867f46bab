"""Counters for Prometheus. Labels are routes and status codes alone: nothing that a request could choose."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from ..engine.generation import Timings
from ..errors import AutodecoError
from .service import Service

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ServerMetrics:
    def __init__(self, service: Service) -> None:
        disable_created_metrics()
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("autodeco_requests", "Requests answered", ["route", "status"], registry=registry)
        self.disconnects = Counter("autodeco_disconnects", "Clients that left before the end", registry=registry)
        self._prompt = Counter("autodeco_prompt_tokens", "Tokens of prompts that were computed", registry=registry)
        self._cached = Counter("autodeco_cached_tokens", "Tokens of prompts found in a slot", registry=registry)
        self._drawn = Counter("autodeco_completion_tokens", "Tokens drawn", registry=registry)
        self._seconds = Histogram("autodeco_choice_seconds", "Of a choice", buckets=_SECONDS, registry=registry)
        self._first = Histogram("autodeco_first_token_seconds", "To it", buckets=_SECONDS, registry=registry)
        for name, text, value in (
            ("autodeco_slots", "Slots", lambda: service.limits.parallel),
            ("autodeco_slots_busy", "Slots that draw", lambda: service.n_running),
            ("autodeco_queue", "Choices that wait", lambda: service.n_waiting),
            ("autodeco_choices_open", "Choices between admission and the end", lambda: service.n_open),
            ("autodeco_loading", "1 while the model loads", lambda: float(service.is_loading)),
            ("autodeco_head_fallbacks", "Head outputs that were not finite", lambda: _fallbacks(service)),
        ):
            Gauge(name, text, registry=registry).set_function(value)

    def first_token(self, seconds: float) -> None:
        """From admission on."""
        self._first.observe(seconds)

    def choice(self, timings: Timings, seconds: float) -> None:
        """One that has ended, whatever its end."""
        self._prompt.inc(timings.prompt_n)
        self._cached.inc(timings.prompt_cached)
        self._drawn.inc(timings.predicted_n)
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _fallbacks(service: Service) -> float:
    try:
        return float(service.engine.n_fallbacks) if service.engine else 0.0
    except AutodecoError:  # closed meanwhile
        return 0.0
