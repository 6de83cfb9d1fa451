"""Time as the services are given it."""

from typing import Protocol


class Clock(Protocol):
    """The wall clock stamps records; the monotonic one measures. Only `daemon` has a real one."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds, never going back, from an arbitrary start."""
