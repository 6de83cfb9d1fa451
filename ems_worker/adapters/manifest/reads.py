"""The queries of reads.sql that give rows, each with the names of its columns.

A row is a named tuple. `{columns}` in a query stands for the fields of its row, in their order; a query that spells its
columns out has them in that order too. Queries for a single value are not listed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

_Row = TypeVar("_Row", bound=tuple[object, ...], covariant=True)


@dataclass(frozen=True, slots=True)
class Read(Generic[_Row]):
    """A query of reads.sql by its name, and the type of its rows."""

    name: str
    row: type[_Row]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.row.__annotations__)


class SubmissionRow(NamedTuple):
    """A plan message and its decision."""

    stream: str
    stream_created_ns: int
    seq: int
    stored_ms: int
    subject: str
    received_ms: int
    verdict: str
    document: str
    experiment_id: str | None
    plan_sha: str | None
    publisher: str | None
    reply_to: str | None


class QuotaRow(NamedTuple):
    """What counts against a publisher's quotas."""

    experiments: int
    jobs: int


class ExperimentRow(NamedTuple):
    """An experiment with its plan."""

    key: int
    experiment_id: str
    name: str
    group: str | None
    plan_sha: str
    points: int
    jobs: int
    replicates: int
    metrics: str
    goal_metric: str | None
    goal: str | None
    created_ms: int
    state: str
    round: int
    revision: int
    published_revision: int
    ended_seq: int
    published_seq: int
    expanded_points: int
    started_ms: int | None
    finished_ms: int | None
    reason: str | None
    pauses: str
    pause_now: int
    cancel: str | None
    kept_open: int
    overrides: str
    plan_version: int
    settled_round: int
    settling_ms: int | None
    earlier_jobs: int
    language: int
    hold: int
    keep_open: int
    description: str | None
    tags: str
    parameters: str | None
    traceparent: str | None
    plan: bytes
    headings: str
    base: str


class StatusRow(NamedTuple):
    """An experiment with the last status that was recorded of it, and who published it."""

    key: int
    experiment_id: str
    document: str | None
    publisher: str | None


class TrackedRow(NamedTuple):
    """How many jobs an experiment has, which metrics it tracks, and which of them ranks its points."""

    jobs: int
    metrics: str
    goal_metric: str | None
    goal: str | None


class RunRow(NamedTuple):
    """One attempt at a job: every column of the table."""

    experiment: int
    point: int
    replicate: int
    attempt: int
    seed: int
    state: str
    current: int
    due_ms: int
    submitted_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    elapsed_ms: int
    stop_reason: str | None
    error_kind: str | None
    error_message: str | None
    retryable: int | None
    metrics: str | None
    artifacts: str | None
    waiting: str | None
    model_version: str | None
    config_sha: bytes | None
    ended_seq: int | None
    job_revision: int
    drains: int
    suspended: int
    host: str | None
    slot: str | None
    step: float | None
    total: float | None
    excluded: str | None


class CountedRow(NamedTuple):
    """How many jobs are counted alike."""

    bucket: str
    is_excluded: int
    stop_reason: str | None
    drains: int
    jobs: int


class PointJobsRow(NamedTuple):
    """How many jobs of a point a status counts alike. `excluded` is the reason of one of those that are."""

    point: int
    bucket: str
    jobs: int
    excluded_jobs: int
    excluded: str | None
    is_open: int
    ended_seq: int | None


class MetricRow(NamedTuple):
    """The aggregate of a metric, which is given by its position in the experiment's list."""

    metric: int
    n: int
    mean: float | None
    m2: float | None
    min: float | None
    max: float | None
    missing: int


class PointMetricRow(NamedTuple):
    """The same for one point."""

    point: int
    metric: int
    n: int
    mean: float | None
    m2: float | None
    min: float | None
    max: float | None
    missing: int


class NumberRow(NamedTuple):
    """The number of a point."""

    point: int


class PointRow(NamedTuple):
    """A point's parameters."""

    point: int
    params: str
    run_id_suffix: str | None
    labels: str | None


class DurationRow(NamedTuple):
    """How long a completed run took."""

    same_base: int
    model_version: str | None
    seconds: float


class ParkedRow(NamedTuple):
    """An event of a run that is not known."""

    simulation_id: str
    subject: str
    seq: int
    received_ms: int
    data: bytes


SUBMISSION = Read("submission", SubmissionRow)
QUOTA_USE = Read("quota_use", QuotaRow)
UNPUBLISHED_DECISIONS = Read("unpublished_decisions", SubmissionRow)
EXPERIMENT = Read("experiment", ExperimentRow)
UNFINISHED = Read("unfinished", ExperimentRow)
STATUSES = Read("statuses", StatusRow)
TRACKED = Read("tracked", TrackedRow)
COUNTED = Read("counted", CountedRow)
MERGED_METRICS = Read("merged_metrics", MetricRow)
JOBS_OF_POINTS = Read("jobs_of_points", PointJobsRow)
METRICS_OF_POINTS = Read("metrics_of_points", PointMetricRow)
ENDED_POINTS = Read("ended_points", NumberRow)
CALLED_OFF_POINTS = Read("called_off_points", NumberRow)
JOBS = Read("jobs", RunRow)
OPEN_JOBS = Read("open_jobs", RunRow)
AWAITING = Read("awaiting", RunRow)
TO_RETRY = Read("to_retry", RunRow)
POINTS_BY_NUMBER = Read("points_by_number", PointRow)
POINT_NUMBERS = Read("point_numbers", NumberRow)
RESULTS = Read("results", RunRow)
JOBS_PAGE = Read("jobs_page", RunRow)
DURATIONS = Read("durations", DurationRow)
PARKED = Read("parked", ParkedRow)
PARKED_OF = Read("parked_of", ParkedRow)

_ALL = [query for query in list(vars().values()) if isinstance(query, Read)]
# The columns of each query's rows, by its name.
COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType({read.name: read.columns for read in _ALL})
