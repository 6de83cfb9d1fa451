"""The time, for the whole worker."""

import time


class SystemClock:
    """The one real clock (`service.clock.Clock`)."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
