"""The exit codes of all commands. Scripts rely on them."""

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
        Exit.OK: "success; with --wait: the experiment completed; ems-worker: orderly stop on SIGTERM or SIGINT",
        Exit.FAILED: "the experiment failed or was cancelled, or what was requested does not exist or was refused",
        Exit.USAGE: "invalid arguments or settings, or a file that can't be read or written",
        Exit.INVALID_PLAN: "the plan is invalid or was rejected; every problem is on stderr",
        Exit.UNREACHABLE: "NATS, the worker or the orchestrator can't be reached, or NATS is misconfigured",
        Exit.TIMED_OUT: "no answer in time; a stored plan without an answer runs when a worker starts",
        Exit.MANIFEST: "ems-worker: the manifest is locked by another worker, damaged, or of a newer version",
        Exit.INTERRUPTED: "interrupted with Ctrl-C; a published experiment continues",
    }
)


class Misused(errors.EmsError):
    """The command was called with arguments that it can't use, or with a file that it can't read or write."""


# The first match counts; every other error is FAILED.
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
    """The exit code for an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.FAILED)


def epilog() -> str:
    """The last paragraph of a command's help: the exit codes."""
    return "Exit codes: " + ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit) + "."
