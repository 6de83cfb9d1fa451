"""Budgets of work, counted in steps: the same on every machine, however busy it is."""

import cProfile
from collections.abc import Callable


def of(action: Callable[[], object]) -> int:
    """How many function calls the action makes in this thread: Python's and C's, and each resumption of a generator."""
    profiler = cProfile.Profile(subcalls=False)
    profiler.runcall(action)
    return sum(entry.callcount for entry in profiler.getstats())
