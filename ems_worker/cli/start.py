"""The entry points of the installed commands. Ctrl-C is silent from the first moment to the last."""

import importlib
import signal


def ems() -> None:
    _run("ems")


def publish() -> None:
    _run("publish")


def worker() -> None:
    _run("worker")


def _run(module: str) -> None:
    """Imports a program, which takes most of the time of a short command, and runs it.

    Until a command handles Ctrl-C itself, and when it has ended, Ctrl-C ends the process as it ends one that isn't
    written in Python: without a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    importlib.import_module(f"ems_worker.cli.{module}").main()
