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
        # Since when time has counted that isn't in the run's `elapsed_ms` yet.
        self._since: dict[RunKey, float] = {}
        self._heard: dict[RunKey, float] = {}
        self._metrics_due: dict[RunKey, float] = {}
        self._waiting_since: dict[RunKey, float] = {}

    def load(self, key: RunKey, loaded: Run) -> None:
        """Starts counting for an open run, if time counts in its state and it isn't suspended."""
        if loaded.state in _TIMED and not loaded.suspended:
            self._since[key] = self._clock.monotonic()

    def changed(self, key: RunKey, before: Run | None, after: Run) -> None:
        """Follows a run from one state to the next. Each state in which time counts starts a new count."""
        if after.state not in transitions.OPEN:
            self._since.pop(key, None)
            self._heard.pop(key, None)
        elif before is None or before.state is not after.state or before.started_ms != after.started_ms:
            self._heard[key] = now = self._clock.monotonic()
            if after.state in _TIMED and not after.suspended:
                self._since[key] = now

    def heard(self, key: RunKey, unchanged: Run) -> None:
        """Notes news of a run that leave its state unchanged: the orchestrator has the run."""
        now = self._clock.monotonic()
        if key in self._heard:
            self._heard[key] = now
        if unchanged.state in _TIMED and not unchanged.suspended:
            self._since.setdefault(key, now)

    def last_heard(self, key: RunKey) -> float | None:
        """When this process last had news of an open run; None if it never had."""
        return self._heard.get(key)

    def elapsed_ms(self, key: RunKey, counted: Run) -> int:
        """The milliseconds that count against the run's limit: recorded ones and those since."""
        since = self._since.get(key)
        return counted.elapsed_ms + (0 if since is None else round(1000 * (self._clock.monotonic() - since)))

    def counted(self, key: RunKey) -> None:
        """Starts a new count, because the time up to now is in the run's `elapsed_ms`."""
        self._since[key] = self._clock.monotonic()

    def counting(self) -> Iterable[RunKey]:
        """The runs whose time counts."""
        return tuple(self._since)

    def suspended(self, key: RunKey, now: Run) -> None:
        """Stops counting for a run that is suspended, and starts again for one that isn't any more."""
        self._since.pop(key, None)
        self.load(key, now)

    def forget(self, key: RunKey) -> None:
        """Stops counting until the next news of this run."""
        self._since.pop(key, None)

    def wait_for_metrics(self, key: RunKey, seconds: float) -> None:
        """Waits until `seconds` after the run completed, even if other metrics arrive meanwhile."""
        self._metrics_due[key] = self._waiting_since.setdefault(key, self._clock.monotonic()) + seconds

    def stop_waiting(self, key: RunKey) -> None:
        """Stops waiting for metrics, if the run's job did."""
        self._metrics_due.pop(key, None)
        self._waiting_since.pop(key, None)

    def awaiting_metrics(self) -> list[RunKey]:
        """The runs whose metrics are awaited."""
        return list(self._metrics_due)

    def metrics_overdue(self) -> list[RunKey]:
        """The runs whose metrics did not arrive in time."""
        now = self._clock.monotonic()
        return [key for key, due in self._metrics_due.items() if due <= now]
