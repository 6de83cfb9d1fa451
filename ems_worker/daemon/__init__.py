"""The worker as a process: signals, shutdown and exit codes. `worker` is its life, `services` its wiring."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

import structlog
import uvloop

from ems_worker import errors, logs
from ems_worker.daemon.worker import Worker
from ems_worker.service.base import crash
from ems_worker.settings import Settings

log = structlog.get_logger()

# Exit codes of `ems-worker run`; docs/operations.md has the remedy for each.
OK, USAGE, BROKER, MANIFEST = 0, 2, 4, 6
_KILLED_TWICE = 130
_EXIT_CODES: Mapping[type[BaseException], int] = {
    errors.SettingsError: USAGE,
    errors.FileUnwritable: USAGE,
    errors.BrokerMisconfigured: BROKER,
    errors.ManifestUnusable: MANIFEST,
}


def run(settings: Settings) -> int:
    """Runs the worker until SIGTERM or SIGINT; returns the exit code."""
    logs.configure(settings.log_level, settings.log_format, sys.stderr)
    crash.arm(os.environ.get("EMS_CRASH_AT"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(settings))
    except (errors.EmsError, BaseExceptionGroup) as error:
        return _fatal(error)
    return OK


def _fatal(error: BaseException) -> int:
    """The exit code for the error that ended the worker; raises an unexpected error, for its traceback."""
    leaves = _leaves(error)
    codes = {_EXIT_CODES.get(type(leaf)) for leaf in leaves}
    code = next(iter(codes)) if len(codes) == 1 else None
    for leaf in leaves:
        log.error("worker.fatal", reason=str(leaf), kind=type(leaf).__name__, exit_code=code)
    if code is None:
        raise error
    return code


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for child in error.exceptions for leaf in _leaves(child)]


async def _main(settings: Settings) -> None:
    work = asyncio.create_task(Worker(settings).run())
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            # The second signal ends the worker at once, which the manifest survives.
            os._exit(_KILLED_TWICE)
        stopping = True
        log.info("worker.stopping")
        work.cancel()
        loop.call_later(settings.shutdown_seconds, give_up)

    def give_up() -> None:
        # The next start recovers unfinished work; a supervisor must not have to wait any longer.
        log.warning("worker.stopped_late", seconds=settings.shutdown_seconds)
        os._exit(OK)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopping:
            raise
    log.info("worker.stopped")
