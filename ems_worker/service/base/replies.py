"""The one gate that every reply passes: of the service, of its discovery, and to a plan's `Ems-Reply-To`."""

from collections.abc import Sequence

import structlog

from ems_worker.core.access import replies
from ems_worker.service.base.metrics import Metrics

log = structlog.get_logger()

# Senders whose refused replies are logged. A sender who makes up names without end is counted, not logged, beyond that.
_LOGGED_SENDERS = 1000
_LOGGED_CHARACTERS = 64


class Replies:
    """Decides where replies may go, and counts and logs the ones that it refuses."""

    def __init__(self, prefixes: Sequence[str], own_inbox: str, metrics: Metrics) -> None:
        self._prefixes = tuple(prefixes)
        self._own_inbox = own_inbox
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def allows(self, subject: str, request: str) -> bool:
        """Whether a reply to `request` (the subject it came on) may go to `subject`."""
        reason = replies.refusal(subject, self._prefixes, self._own_inbox)
        if reason is None:
            return True
        self._metrics.replies_refused.inc()
        # NATS doesn't say who sent a message: the beginning of the reply subject is what tells senders apart.
        sender = (request[:_LOGGED_CHARACTERS], subject.partition(".")[0][:_LOGGED_CHARACTERS])
        if sender not in self._logged and len(self._logged) < _LOGGED_SENDERS:
            self._logged.add(sender)
            log.warning("reply.refused", request=sender[0], reply_subject=subject[:_LOGGED_CHARACTERS], reason=reason)
        return False
