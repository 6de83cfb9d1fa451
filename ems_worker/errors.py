"""Every error that this package raises. The text of an exception is for users: it names the cause and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a plan, and where it is.

    `code` is stable, for programs (`unknown_key`). `path` is the dotted path in the plan (`limits.max_attempts`).
    `line` and `column` count from 1 in the plan as sent; they are None where the position is unknown. `location` is
    the same path as a tuple of keys and indexes: the reader of the text looks up line and column by it. With `on_key`
    the problem is the key rather than its value. `file` is the name of the base file if the position is in that; then
    `path` is the path in it.
    """

    code: str
    path: str
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None
    location: tuple[str | int, ...] = ()
    on_key: bool = False
    file: str | None = None

    def __str__(self) -> str:
        file = f"{self.file}: " if self.file is not None else ""
        position = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        path = f"{self.path}: " if self.path else ""
        return f"{file}{position}{path}{self.message} [{self.code}]"


class EmsError(Exception):
    """The base class of all errors that this package raises on purpose."""


class SettingsError(EmsError):
    """A setting is unknown, has an invalid value, or contradicts another setting."""


class PlanRejected(EmsError):
    """The plan is readable but not acceptable; `problems` lists everything wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Unreadable(EmsError):
    """A message can't be decoded; it belongs in the dead letters."""


class BrokerUnavailable(EmsError):
    """NATS can't be reached or didn't answer in time."""


class BrokerMisconfigured(EmsError):
    """A stream or consumer contradicts what the worker relies on; the text states the difference and the remedy."""


class OrchestratorUnavailable(EmsError):
    """The orchestrator can't be reached or didn't answer in time."""


class ManifestUnusable(EmsError):
    """The manifest is locked by another worker, damaged, or of a newer version; the text names the cause and remedy."""


class ManifestConflict(EmsError):
    """A guarded update did not find the state that it expected; nothing was written."""


class FileUnreadable(EmsError):
    """A named file can't be read."""


class FileUnwritable(EmsError):
    """A file or directory can't be written. The content of an export is still in the manifest."""


class NotFound(EmsError):
    """No experiment, job or run has that name."""


class RequestRefused(EmsError):
    """A query or command can't be carried out as requested."""


class NotOffered(RequestRefused):
    """The orchestrator doesn't implement an optional call that this needs."""


class BeyondEnd(RequestRefused):
    """What was asked for begins beyond the end of what there is."""


class PlanNotReadAsAccepted(RequestRefused):
    """This worker rejects the plan of a recorded experiment, or reads it differently; the text gives cause and remedy.

    Operations that need the plan fail; the experiment stays in the manifest unchanged.
    """


class WorkerUnavailable(EmsError):
    """NATS is reachable, but no worker answers queries."""


class NoAnswer(EmsError):
    """No answer came in time; a later request may succeed."""
