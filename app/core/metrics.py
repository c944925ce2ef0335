"""Prometheus metrics of every process, in one registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()

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
WORKERS = Gauge("millrace_workers", "Workers alive.", registry=REGISTRY)
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
SEARCH_CHANGES_BEHIND = Gauge(
    "millrace_search_changes_behind", "Changes that the index outside of SQL has not read.", registry=REGISTRY
)
SEARCH_SECONDS_BEHIND = Gauge("millrace_search_seconds_behind", "Age of the first of those changes.", registry=REGISTRY)
SEARCH_UP = Gauge("millrace_search_up", "Whether the index outside of SQL answers.", registry=REGISTRY)
SEARCH_UP.set(1)  # until an api finds otherwise; without such an index none is down
STREAMS = Gauge("millrace_event_streams", "Clients that follow events.", registry=REGISTRY)


def render() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
