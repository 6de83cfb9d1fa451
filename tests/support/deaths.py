"""Deaths of a worker at named points, in the process of the test: what it had in memory is lost, files stay."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import patch

from ems_worker.service.base import crash


class _Death(BaseException):
    """The worker died here."""


@dataclass
class Fate:
    """Whether the worker died."""

    died: bool = False


@contextlib.contextmanager
def at(point: str, passage: int = 1) -> Iterator[Fate]:
    """Ends the block when the worker passes the point for this time, if it does."""
    assert point in crash.POINTS, point
    fate, left = Fate(), passage

    def pass_by(name: str, about: str = "") -> None:
        nonlocal left
        left -= name == point
        if left == 0:
            fate.died = True
            raise _Death

    with contextlib.suppress(_Death), patch.object(crash, "point", pass_by):
        yield fate
