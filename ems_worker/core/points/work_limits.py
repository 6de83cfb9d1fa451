"""How much work counting the points of a plan may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """How much work counting a plan may take. A step takes about half a microsecond."""

    # The steps while a plan is parsed; what they don't reach is left for later.
    early_steps: int = 600_000
    # The steps of drawing samples again, which are no part of the others.
    redraw_steps: int = 8_000_000
    # The steps in all.
    steps: int = 40_000_000
    # The parts of diagrams and of their states in all, each some 50 bytes.
    parts: int = 2_000_000


# The limits of `plan.parse` unless it is given others.
DEFAULT = WorkLimits()


class WorkLimitExceeded(Exception):
    """Counting the points takes more work than it may."""


class Work:
    """The work that was done so far. Once it is too much, both methods raise WorkLimitExceeded."""

    def __init__(self, limits: WorkLimits) -> None:
        self._limits = limits
        self.steps = 0
        self._parts = 0

    @property
    def early(self) -> int:
        """The steps that are left while a plan is parsed."""
        return max(0, self._limits.early_steps - self.steps)

    def spend(self, steps: int) -> None:
        """Adds steps."""
        self.steps += steps
        if self.steps > self._limits.steps or self._parts > self._limits.parts:
            raise WorkLimitExceeded

    def keep(self, parts: int) -> None:
        """Adds parts to those in memory; a negative number takes some away."""
        self._parts += parts
        self.spend(0)
