"""Time as the services are given it."""

from typing import Protocol


class Clock(Protocol):
    """The wall clock stamps records; the monotonic one measures. Only `daemon` has a real one."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds, never going back, from an arbitrary start."""


class Steady:
    """Wall time without jumps: that of its making, moved on by the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_ms, self._began = clock.now_ms(), clock.monotonic()

    @property
    def seconds(self) -> float:
        """Since its making."""
        return self._clock.monotonic() - self._began

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._began_ms + round(1000 * self.seconds)
