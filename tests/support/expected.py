"""What a test of the rules expects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support import oracle
from tests.support.evidence import Evidence

NONE = oracle.Failures(())


@dataclass(frozen=True, slots=True)
class Expected:
    """What a test expects.

    `failures`: which runs fail at the orchestrator; None: not known in advance. `retried`: there were retry requests.
    `late`: patterns of the ids of runs that end by their time limit. `window`: how many runs may be open at once.
    `dead`: the number of dead letters; None: any. `superseded`: some ends were replaced before they were published, so
    earlier revisions of results may be missing. `steered`: runs may have been called off. `restored`: a backup was
    restored, so that ends may have other positions than those published before.
    """

    failures: oracle.Failures | None = NONE
    retried: bool = False
    late: tuple[str, ...] = ()
    window: int | None = None
    dead: int | None = 0
    superseded: bool = False
    steered: bool = False
    restored: bool = False


Rule = Callable[[Evidence, Expected], Iterator[str]]
