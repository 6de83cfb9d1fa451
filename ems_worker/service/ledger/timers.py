"""How long runs have been open, silent or waiting for metrics, on the monotonic clock of this process."""

from collections.abc import Iterable

from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service.base.clock import Clock
from ems_worker.service.ledger.live import RunKey

# States in which time counts against a run's limit.
_TIMED = (RunState.SUBMITTED, RunState.RUNNING)


class Timers:
    """Times of runs by key, in monotonic seconds. A run has times only while it is open or waits for metrics."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When the time that is not in `elapsed_ms` yet began to count.
        self._since: dict[RunKey, float] = {}
        self._heard: dict[RunKey, float] = {}
        self._metrics_due: dict[RunKey, float] = {}
        self._waiting_since: dict[RunKey, float] = {}

    def load(self, key: RunKey, loaded: Run) -> None:
        """Starts counting for an open run from the manifest, of which this process has not heard yet."""
        if loaded.state in _TIMED:
            self._since[key] = self._clock.monotonic()

    def changed(self, key: RunKey, before: Run | None, after: Run) -> None:
        """Follows a run from one state to the next: each state that counts begins a new time."""
        if after.state not in transitions.OPEN:
            self._since.pop(key, None)
            self._heard.pop(key, None)
        elif before is None or (before.state, before.started_ms) != (after.state, after.started_ms):
            self._heard[key] = self._clock.monotonic()
            self.load(key, after)

    def heard(self, key: RunKey, unchanged: Run) -> None:
        """Notes that the orchestrator has the run, though its state stays the same."""
        now = self._clock.monotonic()
        if key in self._heard:
            self._heard[key] = now
        if unchanged.state in _TIMED:
            self._since.setdefault(key, now)

    def last_heard(self, key: RunKey) -> float | None:
        """When this process last heard of an open run; None if it never did."""
        return self._heard.get(key)

    def elapsed_ms(self, key: RunKey, counted: Run) -> int:
        """The milliseconds that count against the run's limit: those recorded and those of this process."""
        since = self._since.get(key)
        return counted.elapsed_ms + (0 if since is None else round(1000 * (self._clock.monotonic() - since)))

    def counted(self, key: RunKey) -> None:
        """Continues from now: the time up to here is in the run's `elapsed_ms`."""
        self._since[key] = self._clock.monotonic()

    def counting(self) -> Iterable[RunKey]:
        """The runs whose time counts."""
        return tuple(self._since)

    def forget(self, key: RunKey) -> None:
        """Stops counting until the orchestrator is heard from about this run again."""
        self._since.pop(key, None)

    def wait_for_metrics(self, key: RunKey, seconds: float) -> None:
        """Waits until `seconds` after the run completed, however often more metrics arrive meanwhile."""
        self._metrics_due[key] = self._waiting_since.setdefault(key, self._clock.monotonic()) + seconds

    def stop_waiting(self, key: RunKey) -> None:
        """The run's job waits for no metrics, or no longer."""
        self._metrics_due.pop(key, None)
        self._waiting_since.pop(key, None)

    def metrics_overdue(self) -> list[RunKey]:
        """The runs whose metrics did not arrive in time."""
        now = self._clock.monotonic()
        return [key for key, due in self._metrics_due.items() if due <= now]
