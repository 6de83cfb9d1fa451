"""The check that every reply passes: of queries, of service discovery, and to a plan's `Ems-Reply-To`."""

from collections.abc import Sequence

import structlog

from ems_worker.core.access import replies
from ems_worker.service.base.metrics import Metrics

log = structlog.get_logger()

# How many senders of refused requests are logged, once each. This bounds the log if a sender makes up names.
_LOGGED_SENDERS = 1000
_LOGGED_CHARACTERS = 64


class Replies:
    """Decides where replies may be sent; counts refused ones and logs their senders."""

    def __init__(self, prefixes: Sequence[str], own_inbox: str, metrics: Metrics) -> None:
        self._prefixes = tuple(prefixes)
        self._own_inbox = own_inbox
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def allows(self, subject: str, request: str) -> bool:
        """Whether a reply to a request that arrived on the subject `request` may be sent to `subject`."""
        reason = replies.refusal(subject, self._prefixes, self._own_inbox)
        if reason is None:
            return True
        self._metrics.replies_refused.inc()
        # NATS doesn't name the sender of a message. The beginning of the reply subject tells senders apart.
        sender = (request[:_LOGGED_CHARACTERS], subject.partition(".")[0][:_LOGGED_CHARACTERS])
        if sender not in self._logged and len(self._logged) < _LOGGED_SENDERS:
            self._logged.add(sender)
            log.warning("reply.refused", request=sender[0], reply_subject=subject[:_LOGGED_CHARACTERS], reason=reason)
        return False
