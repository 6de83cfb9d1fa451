"""How many plans may be sent in a minute, by one publisher and by all together."""

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass

from ems_worker.core.documents import subjects
from ems_worker.errors import Problem

_MINUTE_MS = 60_000
# How many plans are remembered; older ones no longer count. This bounds memory where all together have no limit.
_MAX_PLANS = 100_000


def publisher(subject: str) -> str | None:
    """The publisher's name, bound by the broker's permissions: the token after ems.experiment.submit, if any."""
    return subject.removeprefix(subjects.SUBMIT).removeprefix(".") or None


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits in plans a minute; None: no limit. `total` is for all publishers together: names may be made up."""

    publisher: int | None = None
    total: int | None = None


class PlanRate:
    """Counts plans by the time at which the server stored them, so that a backlog doesn't count as a burst.

    Memory is bounded by the number of plans in a minute, not by the number of publishers.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._sent: deque[tuple[int, str | None, Hashable]] = deque()
        self._counted: set[Hashable] = set()
        self._by_publisher: Counter[str | None] = Counter()
        self._newest_ms = 0

    def refusal(
        self, publisher: str | None, published_ms: int, *, again: bool = False, identity: Hashable = None
    ) -> Problem | None:
        """Counts a plan, and returns None, or why it may not be decided now.

        A refused plan isn't counted, so that a steady stream gets its share. `again`: the message was delivered before,
        so its time isn't the server's present time. A plan whose `identity` was counted within the minute is accepted:
        it is the same message, delivered again because it waits for its object, or because the worker died with it.
        """
        if identity is not None and identity in self._counted:
            return None
        at_ms = max(published_ms, self._newest_ms) if again else published_ms
        self._newest_ms = at_ms
        # Plans in the future are dropped, too: the server's clock was set back, and publishers must not wait for that.
        while self._sent and (
            not at_ms - _MINUTE_MS < self._sent[0][0] <= at_ms + _MINUTE_MS or len(self._sent) >= _MAX_PLANS
        ):
            self._drop_oldest()
        limit, total = self._rates.publisher, self._rates.total
        if limit is not None and self._by_publisher[publisher] >= limit:
            name = f"publisher {publisher}" if publisher is not None else "publishers without a name of their own"
            return _too_many(name, limit, "EMS_PLANS_PER_MINUTE")
        if total is not None and len(self._sent) >= total:
            return _too_many("all publishers together", total, "EMS_PLANS_PER_MINUTE_TOTAL")
        self._sent.append((at_ms, publisher, identity))
        self._counted.add(identity)
        self._by_publisher[publisher] += 1
        return None

    def __len__(self) -> int:
        """How many plans are remembered."""
        return len(self._sent)

    def _drop_oldest(self) -> None:
        _, publisher, identity = self._sent.popleft()
        self._counted.discard(identity)
        self._by_publisher[publisher] -= 1
        if not self._by_publisher[publisher]:
            del self._by_publisher[publisher]


def _too_many(name: str, limit: int, setting: str) -> Problem:
    message = f"{name} sent more than {limit:,} plans within a minute ({setting}): send it again later"
    return Problem("429", "", message)
