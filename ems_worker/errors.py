"""What can go wrong, one name each. An exception's text is what a user reads: it says what, where and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a plan, at its place.

    `code` is stable and for machines (`unknown_key`); `path` is the dotted place in the plan (`limits.max_attempts`);
    `line` and `column` count from 1 in the plan as sent and are None where a place can't be told. `place` is the path
    as its steps, by which the reader of the text finds line and column; `on_key`: the key is wrong, not its value.
    """

    code: str
    path: str
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None
    place: tuple[str | int, ...] = ()
    on_key: bool = False

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        path = f"{self.path}: " if self.path else ""
        return f"{place}{path}{self.message} [{self.code}]"


class EmsError(Exception):
    """Anything that this package raises on purpose."""


class SettingsError(EmsError):
    """A setting is unknown, has a bad value or contradicts another."""


class PlanRejected(EmsError):
    """The plan can be read but not accepted; `problems` has everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Unreadable(EmsError):
    """A message whose bytes can't be understood at all; it belongs in the dead letters."""


class BrokerUnavailable(EmsError):
    """NATS can't be reached, or didn't answer in time."""


class BrokerMisconfigured(EmsError):
    """A stream or consumer contradicts what the worker relies on; the text is the difference and the remedy."""


class OrchestratorUnavailable(EmsError):
    """The orchestrator can't be reached, or didn't answer in time."""


class ManifestUnusable(EmsError):
    """The manifest is locked by another worker, damaged, or of a newer version; the text says which and the remedy."""


class ManifestConflict(EmsError):
    """A guarded change found another state than it expected: nothing was written."""


class FileUnreadable(EmsError):
    """A file that was named can't be read."""


class FileUnwritable(EmsError):
    """A file or directory can't be written; of a file for people the manifest has what it would say."""


class NotFound(EmsError):
    """There is no experiment, job or run of that name."""


class RequestRefused(EmsError):
    """A query or command can't be answered as asked."""


class PlanNotReadAsAccepted(RequestRefused):
    """The plan of a recorded experiment is refused by this worker, or means something else to it; why, and the remedy.

    What needs the plan can't be done; the experiment is left as it is in the manifest.
    """


class WorkerUnavailable(EmsError):
    """NATS is there, but no worker answers queries."""


class NoAnswer(EmsError):
    """What was asked is not answered in time; it may be later."""
