"""What is known of one metric over many jobs, without keeping their values."""

import math

from msgspec import Struct
from msgspec.structs import replace


class Aggregate(Struct, frozen=True, gc=False):
    """One metric over jobs: how many had it, mean, sum of squared deviations, extremes, and how many lacked it.

    Updated one value at a time by Welford's method (B. P. Welford, Technometrics 4(3), 1962).
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    missing: int = 0

    def add(self, value: float | None) -> "Aggregate":
        """The aggregate with one more value; None or a value that isn't finite counts as missing."""
        if value is None or not math.isfinite(value):
            return replace(self, missing=self.missing + 1)
        n = self.n + 1
        delta = value - self.mean
        mean = self.mean + delta / n
        return Aggregate(
            n, mean, self.m2 + delta * (value - mean), min(self.min, value), max(self.max, value), self.missing
        )

    def arrived(self, value: float | None) -> "Aggregate":
        """The aggregate when a value that was counted as missing arrives."""
        return replace(self, missing=self.missing - 1).add(value)

    def merge(self, other: "Aggregate") -> "Aggregate":
        """The aggregate of both sets of jobs (T. F. Chan, G. H. Golub, R. J. LeVeque, Compstat 1982)."""
        missing = self.missing + other.missing
        if not self.n or not other.n:
            return replace(self if self.n else other, missing=missing)
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        m2 = self.m2 + other.m2 + delta * delta * (self.n * other.n / n)
        return Aggregate(n, mean, m2, min(self.min, other.min), max(self.max, other.max), missing)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two values."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else None
