"""The values that the parts of the orchestrator exchange."""

import enum
from dataclasses import dataclass, field


class State(enum.StrEnum):
    """The state of a run. Beside each state: what ends it, and what happens after a crash of the orchestrator.

    QUEUED    A slot becomes free. After a crash: still queued.
    HELD      RESUME or STOP: it was paused in the queue, and has no slot. After a crash: still held.
    STARTING  The process is spawned. After a crash: spawned again, unless a process has claimed the directory.
    RUNNING   The process ends. After a crash: adopted, or finished from the files in its directory.
    PAUSED    RESUME or STOP. After a crash: adopted, still paused.
    COMPLETED, FAILED  Final. The event waits in the outbox; the row is deleted after 30 days.

    An orderly shutdown interrupts runs that are STARTING, RUNNING or PAUSED: it ends their processes, and the next
    start puts them back to QUEUED, or to HELD if they were paused.
    """

    QUEUED = "queued"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self in (State.COMPLETED, State.FAILED)


class ErrorKind(enum.StrEnum):
    """Why a run failed, as the contract names it. There is no `timeout`: this orchestrator has no time limit."""

    SIMULATION = "simulation"
    INFEASIBLE = "infeasible"
    INFRASTRUCTURE = "infrastructure"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Order:
    """A run as its caller requested it."""

    simulation_id: str
    config: bytes
    config_sha: str
    seed: int
    experiment_id: str
    # The name that the plan gave; empty for the orchestrator's own.
    simulator: str = ""


class Admission(enum.Enum):
    """How an order was answered."""

    ACCEPTED = enum.auto()
    ALREADY_EXISTS = enum.auto()
    OTHER_CONFIG = enum.auto()


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended. `error_kind` is None exactly when it completed."""

    error_kind: ErrorKind | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    message: str = ""
    retryable: bool | None = None

    @property
    def state(self) -> State:
        """The final state of a run that ended like this."""
        return State.COMPLETED if self.error_kind is None else State.FAILED


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A run as it is stored. Times are in nanoseconds since the Unix epoch, and 0 until the event happens.

    `interrupted`: a shutdown ended its processes, and it is to start again. `starts`: how often it got a slot; `host`
    and `slot`: where it last got one.
    """

    simulation_id: str
    state: State
    config_sha: str
    experiment_id: str
    stop_requested: bool
    started_ns: int
    finished_ns: int
    end: RunEnd
    model_version: str
    interrupted: bool = False
    starts: int = 1
    host: str = ""
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """How many runs the next start of the orchestrator starts again, and how many wait in its queue."""

    interrupted: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A message about a run. Messages about the same run are published in order."""

    simulation_id: str
    subject: str
    message_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event in the outbox, with its number there."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Capacity:
    """The number of slots, of occupied slots, and of queued runs."""

    slots: int
    in_use: int
    queued: int
