"""Prometheus metrics, in one registry; each process exports those that it measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from app import __version__

REGISTRY = CollectorRegistry()
ROLES = ("api", "worker", "scheduler", "relay")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class LateGauge(Gauge):
    """A gauge without a sample until it is set, and after `forget()`: 0 would be a measurement."""

    _is_set = False

    def set(self, value: float) -> None:
        super().set(value)
        self._is_set = True

    def forget(self) -> None:
        """Export no sample until the next measurement."""
        self._is_set = False

    def _samples(self) -> Iterable[Any]:
        return super()._samples() if self._is_set else ()


_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

JOBS_ENQUEUED = Counter("millrace_jobs_enqueued", "Jobs written.", ["kind", "queue"], registry=REGISTRY)
JOBS_ENDED = Counter("millrace_jobs_ended", "Attempts ended.", ["kind", "outcome"], registry=REGISTRY)
JOBS_TIMED_OUT = Counter("millrace_jobs_timed_out", "Attempts that a time limit ended.", ["kind"], registry=REGISTRY)
JOB_SECONDS = Histogram(
    "millrace_job_duration_seconds", "Length of an attempt.", ["kind"], buckets=_FAST, registry=REGISTRY
)
JOB_WAIT_SECONDS = Histogram(
    "millrace_job_wait_seconds", "From due to started.", ["queue"], buckets=_FAST, registry=REGISTRY
)
JOBS_RUNNING = Gauge("millrace_jobs_running", "Jobs running in this process.", registry=REGISTRY)
JOBS_WAITING = Gauge("millrace_jobs_waiting", "Jobs that wait, in SQL.", ["queue"], registry=REGISTRY)
OLDEST_WAITING_SECONDS = Gauge(
    "millrace_oldest_waiting_seconds", "Age of the oldest job that is due.", ["queue"], registry=REGISTRY
)
WORKERS = LateGauge("millrace_workers", "Workers alive.", registry=REGISTRY)
SERVICE_UP = Gauge("millrace_service_up", "Whether a relay's last round reached it.", ["service"], registry=REGISTRY)
REPUSHED = Counter("millrace_relay_repushed", "Pushes that were lost and repeated.", registry=REGISTRY)
ADMITTED = Counter("millrace_relay_admitted", "Jobs the relay put into the window.", ["queue"], registry=REGISTRY)
FREED = Counter("millrace_relay_freed", "Jobs taken back from dead workers.", registry=REGISTRY)
QUARANTINED = Counter("millrace_messages_quarantined", "Messages nobody could decode.", registry=REGISTRY)
LOOP_LAG_SECONDS = Gauge("millrace_loop_lag_seconds", "How late the event loop turns.", registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "millrace_http_request_duration_seconds",
    "Length of a request.",
    ["method", "route", "status"],
    buckets=_FAST,
    registry=REGISTRY,
)
REQUEST_METRICS_DROPPED = Counter(
    "millrace_request_metrics_dropped", "Timings of requests that found no room while SQL was away.", registry=REGISTRY
)
SEARCH_CHANGES_BEHIND = LateGauge(
    "millrace_search_changes_behind", "Changes that the index outside of SQL has not read.", registry=REGISTRY
)
SEARCH_SECONDS_BEHIND = LateGauge(
    "millrace_search_seconds_behind", "Age of the first of those changes.", registry=REGISTRY
)
SEARCH_UP = LateGauge("millrace_search_up", "Whether the index outside of SQL answers.", registry=REGISTRY)
STREAMS = Gauge("millrace_event_streams", "Clients that follow events.", registry=REGISTRY)


PROCESS = Gauge("millrace_process_info", "1 for each process.", ["role", "version"], registry=REGISTRY)
PROGRAM_UP = Gauge(
    "millrace_program_up",
    "1 if the api could read the metrics of this program.",
    ["program"],
    registry=REGISTRY,
)

# The roles that measure each metric; the processes of the other roles do not export it.
MEASURED_BY: dict[str, tuple[str, ...]] = {
    "millrace_event_streams": ("api",),
    "millrace_http_request_duration_seconds": ("api",),
    "millrace_job_duration_seconds": ("worker",),
    "millrace_job_wait_seconds": ("worker",),
    "millrace_jobs_ended": ("worker",),
    "millrace_jobs_enqueued": ROLES,
    "millrace_jobs_running": ("worker",),
    "millrace_jobs_timed_out": ("worker",),
    "millrace_jobs_waiting": ("relay",),
    "millrace_loop_lag_seconds": ("api", "worker"),
    "millrace_messages_quarantined": ("worker",),
    "millrace_oldest_waiting_seconds": ("relay",),
    "millrace_process_info": ROLES,
    "millrace_program_up": ("api",),
    "millrace_relay_admitted": ("relay",),
    "millrace_relay_freed": ("relay",),
    "millrace_relay_repushed": ("relay",),
    "millrace_request_metrics_dropped": ("api",),
    "millrace_search_changes_behind": ("api",),
    "millrace_search_seconds_behind": ("api",),
    "millrace_search_up": ("api",),
    "millrace_service_up": ("relay",),
    "millrace_workers": ("relay",),
}


class _Families:
    """Families that `generate_latest` writes, without those that have no sample."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return (family for family in self._families if family.samples)


def render(role: str) -> bytes:
    """Return the metrics that a process of this role measures, in Prometheus' text format."""
    PROCESS.labels(role, __version__).set(1)
    exported = (family for family in REGISTRY.collect() if role in MEASURED_BY[family.name])
    return _write(exported)


def join(texts: Mapping[str, str]) -> bytes:
    """Return the metrics of several programs as one text; the label `program` tells their samples apart."""
    joined: dict[str, Metric] = {}
    for program, text in texts.items():
        for family in text_string_to_metric_families(text):
            whole = joined.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {"program": program, **sample.labels}
                whole.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
    return _write(joined.values())


def _write(families: Iterable[Metric]) -> bytes:
    text: bytes = generate_latest(_Families(families))
    return text
