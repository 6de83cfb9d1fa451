"""Deaths of a worker at named points, in the process of the test: what it had in memory is lost, files stay."""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from ems_worker.service.base import crash


class Died(BaseException):
    """The worker died here."""


@contextlib.contextmanager
def at(point: str) -> Iterator[None]:
    """Ends the block at the first passage of the point. Raises AssertionError if the point isn't passed."""
    assert point in crash.POINTS, point

    def die(name: str, about: str = "") -> None:
        if name == point:
            raise Died

    try:
        with patch.object(crash, "point", die):
            yield
    except Died:
        return
    raise AssertionError(f"{point} wasn't passed")
