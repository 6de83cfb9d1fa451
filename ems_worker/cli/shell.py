"""What all commands share: one way to end, to speak to people, and to name the server."""

import errno
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from ems_worker import errors
from ems_worker.cli import exits
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import settings

P = ParamSpec("P")
# EBADF: an output that was closed before we began, see `streams.reopen`.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="NATS servers, separated by commas. Default: EMS_SERVER, NATS_URL, nats://127.0.0.1:4222."
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Context of the nats command. Default: EMS_CONTEXT, NATS_CONTEXT, else the selected one.",
    ),
]
AllowFilesFrom = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Files that the plan names may be below this directory too, not only below its own; may be given again.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON documents, one a line.")]


def app(words: str, **options: Any) -> typer.Typer:
    """A typer application with our manners: plain help that reads well in a pipe, no decorated tracebacks."""
    return typer.Typer(
        help=words,
        epilog=exits.epilog(),
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        **options,
    )


def run(application: typer.Typer) -> NoReturn:
    """The entry point of a command."""
    streams.reopen()
    streams.guard()
    try:
        try:
            application()
        finally:
            # It ends by SystemExit; what --help and --version print is in no command's guard.
            sys.stdout.flush()
    except KeyboardInterrupt:  # before the command's own guard was up
        sys.exit(exits.Exit.INTERRUPTED)
    except OSError as failed:
        sys.exit(_unwritten(failed))
    sys.exit(exits.Exit.OK)


def guarded(command: Callable[P, exits.Exit | int]) -> Callable[P, None]:
    """A command's body with its one way to end: its exit code, or the words and the code of our error."""

    @functools.wraps(command)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            say("interrupted")
            code = exits.Exit.INTERRUPTED
        except OSError as failed:
            code = _unwritten(failed)
        except errors.EmsError as error:
            say(f"error: {error}")
            code = exits.of(error)
        raise typer.Exit(code)

    return guard


def _unwritten(failed: OSError) -> exits.Exit:
    """How a command ends whose output can't be written; raises any other failure again."""
    if isinstance(failed, BrokenPipeError):
        # The reader (head, less) has seen enough. What is left in the buffer must not fail at exit.
        _silence_stdout()
        return exits.Exit.OK
    # A full disk behind `>`. Our own modules turn what they can't read or write into our errors.
    if failed.errno not in _CANNOT_WRITE:
        raise failed
    _silence_stdout()
    say(f"error: the output can't be written: {failed.strerror}")
    return exits.Exit.USAGE


def _silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# A line for people on stderr, one on stdout, and a JSON document as a line on stdout.
say, out, out_json = streams.say, streams.out, streams.out_json


def access(server: str | None, context: str | None) -> "settings.Access":
    """How to get into NATS, from the flags and the environment."""
    from ems_worker import settings

    return settings.access({"server": server, "context": context}, os.environ)


def version(wanted: bool) -> None:
    """The callback of `--version`."""
    if wanted:
        out(importlib.metadata.version("ems-worker"))
        raise typer.Exit(exits.Exit.OK)


Version = Annotated[
    bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
]
