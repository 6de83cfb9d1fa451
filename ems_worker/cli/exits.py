"""Exit codes of all commands: what scripts may rely on."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from ems_worker import errors


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID_PLAN = 3
    UNREACHABLE = 4
    TIMED_OUT = 5
    MANIFEST = 6
    INTERRUPTED = 130


MEANING: Mapping[Exit, str] = MappingProxyType(
    {
        Exit.OK: "done; with --wait: the experiment completed; ems-worker: stopped in order by SIGTERM or SIGINT",
        Exit.FAILED: "the experiment failed or was cancelled; what was asked for does not exist or was refused",
        Exit.USAGE: "wrong arguments or settings, or a file that can't be read or written",
        Exit.INVALID_PLAN: "the plan is invalid or was rejected; every problem is on stderr",
        Exit.UNREACHABLE: "NATS, the worker or the orchestrator can't be reached, or NATS contradicts what is needed",
        Exit.TIMED_OUT: "no answer in time; a stored plan that no worker answered runs when one starts",
        Exit.MANIFEST: "ems-worker: the manifest is locked by another worker, damaged, or of a newer version",
        Exit.INTERRUPTED: "interrupted with Ctrl-C; a published experiment goes on",
    }
)


class Misused(errors.EmsError):
    """A command can't do what it was asked to for a reason on this side: a file that can't be read or written."""


# The first that fits; all others end as FAILED.
_BY_ERROR: tuple[tuple[type[errors.EmsError], Exit], ...] = (
    (Misused, Exit.USAGE),
    (errors.SettingsError, Exit.USAGE),
    (errors.FileUnreadable, Exit.USAGE),
    (errors.FileUnwritable, Exit.USAGE),
    (errors.PlanRejected, Exit.INVALID_PLAN),
    (errors.Unreadable, Exit.INVALID_PLAN),
    (errors.BrokerUnavailable, Exit.UNREACHABLE),
    (errors.BrokerMisconfigured, Exit.UNREACHABLE),
    (errors.WorkerUnavailable, Exit.UNREACHABLE),
    (errors.OrchestratorUnavailable, Exit.UNREACHABLE),
    (errors.NoAnswer, Exit.TIMED_OUT),
    (errors.ManifestUnusable, Exit.MANIFEST),
)


def of(error: errors.EmsError) -> Exit:
    """The exit code of a command that ends with this error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.FAILED)


def epilog() -> str:
    """The codes as the last paragraph of a command's help."""
    return "Exit codes: " + ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit) + "."
