"""The real clock."""

import time


class SystemClock:
    """The system's clock, as a `service.base.clock.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
