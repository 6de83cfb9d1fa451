"""What all commands share: options, output, error handling, exit codes."""

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from ems_worker import errors
from ems_worker.cli import exits
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import settings

P = ParamSpec("P")
# EBADF: the output was closed before the program started, see `streams.reopen`.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)

Plan = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's file, YAML or JSON; - for standard input.")]
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="NATS servers, separated by commas. Default: EMS_SERVER, NATS_URL or nats://127.0.0.1:4222.",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A context of the nats command. Default: EMS_CONTEXT, NATS_CONTEXT or the selected context.",
    ),
]
AllowFilesFrom = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Let the plan name files below this directory, besides those below its own; repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one document per line.")]


def app(about: str, *, completes: bool = False, **options: Any) -> typer.Typer:
    """Returns a typer application with plain help and plain tracebacks, which read well in a pipe.

    With `completes`, it has options that install the completion of its commands in a shell.
    """
    return typer.Typer(
        help=about,
        epilog=exits.epilog(),
        add_completion=completes,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        **options,
    )


def run(application: typer.Typer) -> NoReturn:
    """Runs a program and exits with its exit code."""
    streams.reopen()
    streams.guard()
    try:
        try:
            application()
        finally:
            # The application raises SystemExit. The output of --help and --version passes no command's guard.
            sys.stdout.flush()
    except KeyboardInterrupt:  # before the command's own guard began
        sys.exit(exits.Exit.INTERRUPTED)
    except OSError as failed:
        sys.exit(_unwritten(failed))
    sys.exit(exits.Exit.OK)


def guarded(command: Callable[P, exits.Exit | int]) -> Callable[P, None]:
    """Wraps a command: it exits with the code that it returns, or prints our error and exits with the error's code."""

    @functools.wraps(command)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _interruptible():
                code = command(*args, **kwargs)
                sys.stdout.flush()
        except KeyboardInterrupt:
            # Silently: a command says itself what goes on.
            code = exits.Exit.INTERRUPTED
        except OSError as failed:
            code = _unwritten(failed)
        except errors.EmsError as error:
            say(f"error: {error}")
            code = exits.of(error)
        raise typer.Exit(code)

    return guard


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Makes Ctrl-C a KeyboardInterrupt, as Python does by itself, where `start` has made it end the process."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _unwritten(failed: OSError) -> exits.Exit:
    """Returns the exit code of a command whose output can't be written; re-raises any other failure."""
    if isinstance(failed, BrokenPipeError):
        # The reader (head, less) has stopped reading. Flushing the rest of the buffer at exit must not fail.
        _silence_stdout()
        return exits.Exit.OK
    # A full disk behind `>`. Files that our modules can't read or write raise our own errors instead.
    if failed.errno not in _CANNOT_WRITE:
        raise failed
    _silence_stdout()
    say(f"error: the output can't be written: {failed.strerror}")
    return exits.Exit.USAGE


def _silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Print a line for people on stderr, a line on stdout, and a JSON document as a line on stdout.
say, out, out_json = streams.say, streams.out, streams.out_json


def access(server: str | None, context: str | None) -> "settings.Access":
    """Returns the address and credentials of NATS, from the flags and the environment."""
    from ems_worker import settings

    return settings.access({"server": server, "context": context}, os.environ)


def version(wanted: bool) -> None:
    """The callback of `--version`."""
    if wanted:
        import importlib.metadata

        out(importlib.metadata.version("ems-worker"))
        raise typer.Exit(exits.Exit.OK)


Version = Annotated[
    bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
]
