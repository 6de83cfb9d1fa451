"""How many plans a publisher may send in a minute."""

from collections import OrderedDict, deque

_MINUTE_MS = 60_000
# Publishers are remembered only while they send; more than so many at once, and the quietest are forgotten.
_MOST_PUBLISHERS = 10_000


class PlanRate:
    """Counts by when the server stored the plans, not by when they are read: a backlog is no haste of its publisher."""

    def __init__(self, limit: int | None) -> None:
        """`limit`: plans a publisher and minute; None: any number."""
        self._limit = limit
        self._sent: OrderedDict[str, deque[int]] = OrderedDict()

    def allows(self, publisher: str | None, published_ms: int) -> bool:
        """Whether this plan may be decided; one that may not isn't counted, so that a steady stream gets its share."""
        if self._limit is None:
            return True
        sent = self._sent.setdefault(publisher or "", deque())
        self._sent.move_to_end(publisher or "")
        if len(self._sent) > _MOST_PUBLISHERS:
            self._sent.popitem(last=False)
        # Also what is ahead: the server's clock was set back, and that must not keep its publishers waiting.
        while sent and not published_ms - _MINUTE_MS < sent[0] <= published_ms + _MINUTE_MS:
            sent.popleft()
        if len(sent) >= self._limit:
            return False
        sent.append(published_ms)
        return True
