"""What Prometheus gets to see. https://prometheus.io/docs/practices/naming/"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sdk.builder import Line, Step

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One service's counters; a second service in the same process has its own."""

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._builds = Counter(
            "of_builder_builds", "Builds that ended, by how", ["result", "reason"], registry=self._registry
        )
        self._joined = Counter(
            "of_builder_joined", "Requests that joined a build of the same", registry=self._registry
        )
        self._steps = Counter(
            "of_builder_steps",
            "Build steps, by whether their result was cached",
            ["cached"],
            registry=self._registry,
        )
        self._step_seconds = Histogram(
            "of_builder_step_seconds",
            "Seconds of the steps that ran",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._build_seconds = Histogram(
            "of_builder_build_seconds",
            "Seconds of whole builds, without their waiting",
            buckets=_SECONDS,
            registry=self._registry,
        )
        for name, meaning, read in (
            ("of_builder_queue_depth", "Builds that wait", waiting),
            ("of_builder_running", "Builds that run", running),
        ):
            Gauge(name, meaning, registry=self._registry).set_function(read)

    def ended(self, last: Line, seconds: float) -> None:
        """A build that went its way, to success or failure."""
        self._builds.labels(last.status, last.reason).inc()
        self._build_seconds.observe(seconds)
        self._count(last.steps)

    def cancelled(self) -> None:
        self._builds.labels("cancelled", "").inc()

    def joined(self) -> None:
        self._joined.inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _count(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._steps.labels(str(step.cached).lower()).inc()
            if not step.cached:
                self._step_seconds.observe(step.seconds)
