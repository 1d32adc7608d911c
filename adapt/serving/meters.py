"""What Prometheus reads at /metrics: requests, tokens, risk, batches, the version that answers.

Counters of all replicas on a machine are added up through a folder of numbers that they share; no
content of a request is in it.
"""

import os
from collections.abc import Callable
from typing import Any

SHARED = "ADAPT_METERS"  # the folder, for the replicas of a server
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the same, for Prometheus's client; only of this process
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
RISKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class Meters:
    """The meters of one replica. `held`: the pixels that wait now, `version`: what answers."""

    def __init__(self, held: Callable[[], float], version: Callable[[], str]) -> None:
        if folder := os.environ.get(SHARED):
            os.environ[FOLDER] = folder
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        to: dict[str, Any] = {"registry": self._registry}
        live: dict[str, Any] = {**to, "multiprocess_mode": "livesum"}
        self.requests = Counter("adapt_requests", "Requests by HTTP status", ["status"], **to)
        self.seconds = Histogram(
            "adapt_request_seconds",
            "From the request to the end of its answer",
            buckets=SECONDS,
            **to,
        )
        self.prompt_tokens = Counter("adapt_prompt_tokens", "Tokens of prompts, pictures too", **to)
        self.tokens = Counter("adapt_answer_tokens", "Tokens of answers", **to)
        self.steered = Counter("adapt_steered_tokens", "Tokens at which steering fired", **to)
        self.risk = Histogram("adapt_answer_risk", "Risk of an answer", buckets=RISKS, **to)
        self.risky = Counter("adapt_risky_answers", "Answers at or above the threshold", **to)
        self.rows = Histogram("adapt_batch_rows", "Questions answered at once", buckets=ROWS, **to)
        self.batch_seconds = Counter("adapt_batch_seconds", "Time of the model, by batches", **to)
        self.ended = Counter("adapt_finish", "Answers by how they ended", ["reason"], **to)
        self._held = Gauge("adapt_held_pixels", "Pixels that wait for answers", **live)
        self._version = Gauge("adapt_model", "1 for the version that answers", ["version"], **live)
        self._now, self._known = (held, version), ""

    def page(self) -> bytes:
        """All meters in Prometheus's text form."""
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess

        held, version = self._now
        self._held.set(held())
        if version() != self._known:
            self._version.labels(self._known).set(0)
            self._known = version()
        self._version.labels(self._known).set(1)
        if FOLDER not in os.environ:
            return bytes(generate_latest(self._registry))
        every = CollectorRegistry()
        multiprocess.MultiProcessCollector(every)
        return bytes(generate_latest(every))
