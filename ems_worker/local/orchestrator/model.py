"""What the orchestrator's parts tell each other."""

import enum
from dataclasses import dataclass, field


class State(enum.StrEnum):
    """Where a run is. Beside each state: who moves it on, and what a crash of the orchestrator there means.

    QUEUED    the slots, when one is free; stays queued.
    STARTING  the slots, which are about to spawn the process; spawned by the restart unless it claimed its directory.
    RUNNING   the end of the process; adopted by the restart, or finished from what it left behind.
    PAUSED    RESUME or STOP; adopted still paused.
    COMPLETED, FAILED  nobody: the end. The event waits in the outbox, the row is forgotten after 30 days.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing can change any more."""
        return self in (State.COMPLETED, State.FAILED)


class ErrorKind(enum.StrEnum):
    """Why a run failed, in the contract's words; this orchestrator has no time limit, so no `timeout`."""

    SIMULATION = "simulation"
    INFEASIBLE = "infeasible"
    INFRASTRUCTURE = "infrastructure"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Order:
    """A run as its caller asked for it."""

    simulation_id: str
    config: bytes
    config_sha: str
    seed: int
    experiment_id: str


class Admission(enum.Enum):
    """What became of an order."""

    ACCEPTED = enum.auto()
    ALREADY_EXISTS = enum.auto()
    OTHER_CONFIG = enum.auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `error_kind` is None exactly when it completed."""

    error_kind: ErrorKind | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    message: str = ""
    retryable: bool | None = None

    @property
    def state(self) -> State:
        """The state that this outcome leads to."""
        return State.COMPLETED if self.error_kind is None else State.FAILED


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the store knows it. Times are nanoseconds since the Unix epoch, 0 where they haven't come yet."""

    simulation_id: str
    state: State
    config_sha: str
    experiment_id: str
    stop_requested: bool
    started_ns: int
    finished_ns: int
    outcome: Outcome
    model_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """A message for the bus, and the run whose messages keep their order."""

    simulation_id: str
    subject: str
    message_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event in the outbox."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Capacity:
    """How full the slots are."""

    slots: int
    in_use: int
    queued: int
