"""How many plans may be sent in a minute: by one publisher, and by all together."""

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass

from ems_worker.core.documents import subjects
from ems_worker.errors import Problem

_MINUTE_MS = 60_000
# Plans that are remembered at most where there is no limit for all: those before count no more.
_MOST_PLANS = 100_000


def publisher(subject: str) -> str | None:
    """The name that the broker's permissions bind, the token after ems.experiment.submit; None without one."""
    return subject.removeprefix(subjects.SUBMIT).removeprefix(".") or None


@dataclass(frozen=True, slots=True)
class Rates:
    """Plans a minute; None: any number. `total` is for all publishers together, since a name may be made up."""

    publisher: int | None = None
    total: int | None = None


class PlanRate:
    """Counts by when the server stored the plans, not by when they are read: a backlog is no haste of its publisher.

    Memory is bounded by the plans of one minute, however many names they came under.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._sent: deque[tuple[int, str | None, Hashable]] = deque()
        self._counted: set[Hashable] = set()
        self._of: Counter[str | None] = Counter()
        self._newest_ms = 0

    def refusal(
        self, publisher: str | None, published_ms: int, *, again: bool = False, identity: Hashable = None
    ) -> Problem | None:
        """Counts a plan; why it may not be decided, or None.

        One that is refused isn't counted, so that a steady stream gets its share. `again`: the message was delivered
        before, so that its time says nothing about the server's clock. One of an `identity` that was counted within
        the minute passes: it waits for its object, or the worker died with it.
        """
        if identity is not None and identity in self._counted:
            return None
        at_ms = max(published_ms, self._newest_ms) if again else published_ms
        self._newest_ms = at_ms
        # Also what is ahead: the server's clock was set back, and that must not keep its publishers waiting.
        while self._sent and (
            not at_ms - _MINUTE_MS < self._sent[0][0] <= at_ms + _MINUTE_MS or len(self._sent) >= _MOST_PLANS
        ):
            self._drop_oldest()
        limit, total = self._rates.publisher, self._rates.total
        if limit is not None and self._of[publisher] >= limit:
            who = f"publisher {publisher}" if publisher is not None else "publishers without a name of their own"
            return _too_many(who, limit, "EMS_PLANS_PER_MINUTE")
        if total is not None and len(self._sent) >= total:
            return _too_many("all publishers together", total, "EMS_PLANS_PER_MINUTE_TOTAL")
        self._sent.append((at_ms, publisher, identity))
        self._counted.add(identity)
        self._of[publisher] += 1
        return None

    def _drop_oldest(self) -> None:
        _, publisher, identity = self._sent.popleft()
        self._counted.discard(identity)
        self._of[publisher] -= 1
        if not self._of[publisher]:
            del self._of[publisher]


def _too_many(who: str, limit: int, setting: str) -> Problem:
    words = f"{who} sent more than {limit:,} plans within a minute ({setting}): send it again later"
    return Problem("429", "", words)
