"""The clock that the services are given."""

from typing import Protocol


class Clock(Protocol):
    """Wall time is for records, monotonic time for durations. Only `daemon` has a real clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, which never go back."""


class Steady:
    """Wall time without jumps: the time at which it was created, moved on by the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_ms, self._began = clock.now_ms(), clock.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it was created."""
        return self._clock.monotonic() - self._began

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._began_ms + round(1000 * self.seconds)
