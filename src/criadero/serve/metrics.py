"""What the server has done and is doing, in Prometheus's text format.

Entry point: `Metrics`. What the worker and its engine count already is read from them when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from criadero.serve.worker import Answer, Worker

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 600)


class Metrics:
    """The numbers of one server.

    Attributes:
        answered: HTTP answers by their status.
    """

    def __init__(self, worker: Worker) -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(_State(worker))
        self.answered = Counter(
            "criadero_http_requests", "HTTP requests answered.", ["status"], registry=registry
        )
        self._first_token = Histogram(
            "criadero_time_to_first_token_seconds",
            "From a request's place in the queue to its first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._answer = Histogram(
            "criadero_answer_seconds",
            "From a request's place in the queue to the end of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )

    def observe(self, answer: Answer) -> None:
        """Take the times of an answer that is over."""
        if answer.first_token_seconds is not None:
            self._first_token.observe(answer.first_token_seconds)
        self._answer.observe(answer.seconds)

    def render(self) -> bytes:
        """Return all of it as text."""
        return generate_latest(self._registry)


class _State(Collector):
    """Reads the worker; of a model that is not there yet nothing can be said."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        worker = self._worker
        yield _counter("requests", "Prompts queued, each choice counted.", worker.requests)
        yield _counter("requests_cancelled", "Prompts let go before their end.", worker.cancelled)
        if worker.state != "ready":
            return
        engine = worker.model.engine
        counts = engine.counts
        yield _counter("prompt_tokens", "Tokens of prompts run through the model.", counts.prefilled)
        yield _counter("prompt_tokens_reused", "Tokens of prompts found in the cache.", counts.reused)
        yield _counter("decoded_tokens", "Tokens of answers run through the model.", counts.decoded)
        yield _counter("preemptions", "Answers set back because the cache was full.", counts.preempted)
        yield _gauge("requests_open", "Prompts running or waiting.", worker.open_requests)
        yield _gauge("cache_tokens", "Tokens that the cache holds at most.", engine.capacity_tokens)
        yield _gauge("cache_tokens_free", "Tokens that the cache has room for.", engine.free_tokens)

    def describe(self) -> Iterator[Metric]:
        return iter(())  # else it would be asked for its numbers when it is registered


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"criadero_{name}", what, value=value)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"criadero_{name}", what, value=value)
