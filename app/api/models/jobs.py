"""Answers about jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.api.models.base import JsonObject, ListPage, Number, ResponseModel, Timestamp, documented
from app.jobs.states import State


class JobProgress(ResponseModel):
    """The last progress that the job reported; null where it reported none."""

    percent: float | None
    stage: str | None
    done: float | None
    total: float | None
    unit: str | None
    message: str | None
    seq: int = Field(..., description="The number of the last progress event.")


class JobError(ResponseModel):
    """The last error of the job."""

    type: str = Field(..., description="The class of the exception.")
    message: str | None
    code: str | None = Field(..., description="A stable word for programs.")


class JobSummary(ResponseModel):
    """A job, as lists show it."""

    id: str
    kind: str
    queue: str
    tenant: str
    state: State
    attempt: int = Field(..., description="The number of the current or last attempt; 0 before the first.")
    max_attempts: int
    progress: JobProgress
    document_id: Number | None
    parent_id: str | None
    created_at: Timestamp
    due_at: Timestamp
    claimed_at: Timestamp | None
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    error: JobError | None
    request_id: str | None


class ListedJob(JobSummary):
    """A job with the name of its document."""

    document_name: str | None = Field(..., description="Title, file name or URL of its document.")


class JobPage(ListPage):
    """A page of jobs."""

    data: list[ListedJob]


class AttemptWorker(ResponseModel):
    """The worker that ran an attempt; host and pid are null once its row is deleted."""

    id: str
    host: str | None
    pid: int | None


class AttemptError(ResponseModel):
    """The error that ended an attempt."""

    type: str
    message: str | None
    traceback: str | None


class JobAttempt(ResponseModel):
    """One run of a job."""

    fence: int = Field(..., description="The number of the claim.")
    worker: AttemptWorker | None
    claimed_at: Timestamp | None
    started_at: Timestamp | None
    finished_at: Timestamp | None
    outcome: str
    repeats: int = Field(..., description="Runs in a row that this entry stands for; over 1 only if they snoozed.")
    error: AttemptError | None


class JobChildren(ResponseModel):
    """The counts of a job's children."""

    total: int
    succeeded: int
    failed: int
    open: int
    rule: str | None = Field(..., description="The rule that ends the wait for the children.")


class AcceptedJob(JobSummary):
    """A job that a request started or changed; with its details if the caller waited for its end."""

    payload: JsonObject = Field({}, description="The input of the job.")
    priority: int = 0
    expires_at: Timestamp | None = None
    unique_key: str | None = None
    webhook_url: str | None = None
    traceparent: str | None = Field(None, description="The W3C trace context of the request.")
    result: JsonObject | None = Field(None, description="The output of the job, once it has succeeded.")
    fingerprint: str | None = Field(None, description="Equal for jobs that failed of the same fault.")
    discarded_at: Timestamp | None = None
    attempts: list[JobAttempt] = Field([], description="The oldest first; the running one is last.")
    children: JobChildren | None = None


class JobDetail(AcceptedJob):
    """A job with payload, result, attempts and the counts of its children."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    children: JobChildren


# The answers of a route that starts one job.
JOB_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: documented(AcceptedJob, "The job. `Location` has its address."),
    200: documented(AcceptedJob, "The job, which has ended."),
}


class StartedJobs(ResponseModel):
    """The jobs of a list, in its order."""

    data: list[JobSummary]


class KindUniqueness(ResponseModel):
    """The rule by which two requests become one job."""

    mode: Literal["while_open", "throttle", "debounce"]
    seconds: float = 0
    max_wait_s: float | None = None


class KindDetail(ResponseModel):
    """A kind of job, as its definition describes it."""

    kind: str
    description: str | None
    queue: str
    priority: int
    open_to: str | None = Field(..., description="The scope that may start it.")
    max_attempts: int
    time_limit_s: float
    payload_version: int
    unique: KindUniqueness | None
    stages: list[str]
    json_schema: JsonObject | None = Field(..., alias="schema", description="The JSON Schema of the payload.")


class KindPage(ListPage):
    """The kinds that the caller may start; always one page."""

    data: list[KindDetail]


class JobExplanation(ResponseModel):
    """The one reason for the current state of a job, and the fix."""

    job_id: str
    kind: str
    state: State
    reason: str = Field(..., description="A stable word for programs.")
    message: str
    fix: str
    since: Timestamp | None
    since_s: float | None = Field(..., description="Seconds since then.")
    facts: JsonObject = Field(..., description="Numbers and ids behind the message; they differ by reason.")


class JobLogLine(ResponseModel):
    """A line that the code of a job logged."""

    id: Number
    at: Timestamp
    level: str
    attempt: int
    fence: int
    logger: str
    event: str
    fields: JsonObject


class JobLogPage(ListPage):
    """A page of log lines, the oldest first."""

    data: list[JobLogLine]


class DeadLetterError(ResponseModel):
    """The error of a group's latest job."""

    type: str | None
    code: str | None
    message: str | None


class DeadLetterGroup(ResponseModel):
    """Failed jobs with the same fault."""

    fingerprint: str
    count: int
    first_seen: Timestamp
    last_seen: Timestamp
    kinds: list[str]
    error: DeadLetterError
    latest_job_id: str


class DeadLetterPage(ListPage):
    """A page of groups, the latest seen first."""

    data: list[DeadLetterGroup]


class BulkPreview(ResponseModel):
    """The jobs that a bulk action would change."""

    action: Literal["cancel", "retry", "discard"]
    matched: int
    states: dict[str, int] = Field(..., description="Jobs by state.")
    kinds: dict[str, int] = Field(..., description="Jobs by kind.")
    sample: list[str] = Field(..., description="Ids of up to ten of the jobs.")
