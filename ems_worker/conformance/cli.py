"""`ems-conformance`: checks an orchestrator or a simulator that somebody else wrote."""

import argparse
import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ems_worker import errors
from ems_worker.conformance import check, configurations, kit, orchestrator, report, simulator
from ems_worker.terminal import streams

_OK, _FAILED, _USAGE, _UNREACHABLE, _INTERRUPTED = 0, 1, 2, 4, 130
_EPILOG = "Exit codes: 0 all passed, 1 a check failed, 2 usage, 4 orchestrator or broker unreachable, 130 interrupted."
_SUITES: dict[str, Sequence[check.Check[Any]]] = {"orchestrator": orchestrator.CHECKS, "simulator": simulator.CHECKS}
_COMMAND_SECONDS = 120.0
_MOST_WORDS = 500


def run(arguments: Sequence[str] | None = None) -> int:
    """The entry point; the exit code."""
    streams.guard()
    given = _parser().parse_args(arguments)
    suite = _SUITES[given.what]
    if given.list:
        for one in suite:
            _out(f"{one.name}: {one.meaning}")
        return _OK
    only = frozenset(given.check or ())
    if unknown := only - {one.name for one in suite}:
        return _say(_USAGE, f"there is no check {', '.join(sorted(unknown))}; --list shows them")
    if given.what == "simulator" and not given.command:
        return _say(_USAGE, "name the simulator: ems-conformance simulator -- COMMAND")
    try:
        short = Path(given.config).read_bytes() if given.config else configurations.SHORT
        long = Path(given.long_config).read_bytes() if given.long_config else configurations.LONG
    except OSError as failed:
        return _say(_USAGE, f"the configuration can't be read: {failed}")
    checks = check.selected(suite, only)
    results = _results(given, short, long, only)
    try:
        found = asyncio.run(_print(len(checks), results))
        if given.junit is not None:
            given.junit.write_bytes(report.junit(f"ems-conformance {given.what}", found))
    except KeyboardInterrupt:
        return _say(_INTERRUPTED, "interrupted")
    except (errors.OrchestratorUnavailable, errors.BrokerUnavailable) as away:
        return _say(_UNREACHABLE, str(away))
    except errors.EmsError as failed:
        return _say(_FAILED, str(failed))
    except OSError as failed:
        return _say(_USAGE, f"the JUnit file can't be written: {failed}")
    return _OK if report.passed(found) else _FAILED


def _results(given: argparse.Namespace, short: bytes, long: bytes, only: frozenset[str]) -> AsyncIterator[check.Result]:
    if given.what == "simulator":
        command = tuple(given.command)
        return simulator.run(simulator.Options(command, short, long, given.timeout, given.stop_grace_seconds, only))
    return orchestrator.run(
        kit.Options(
            orchestrator=given.orchestrator,
            server=given.server,
            short=short,
            long=long,
            timeout=given.timeout,
            restart=_restart(given.restart_command),
            restart_broker=_restart(given.broker_restart_command),
            only=only,
        )
    )


async def _print(count: int, results: AsyncIterator[check.Result]) -> Sequence[check.Result]:
    """Prints each result as it comes; all of them."""
    found: list[check.Result] = []
    async for result in results:
        if not found:
            _out(*report.head(count))
        found.append(result)
        _out(*report.line(len(found), result))
    _out(report.summary(found))
    return found


def _restart(command: str | None) -> Callable[[], Awaitable[None]] | None:
    return functools.partial(_shell, command) if command else None


async def _shell(command: str) -> None:
    """Runs the user's own command to its end. Raises check.Failed with what it said where it doesn't end with 0."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            _, said = await process.communicate()
    except TimeoutError as late:
        process.kill()
        raise check.Failed(
            f"{command!r} has not ended after {_COMMAND_SECONDS:g} s: what it starts must not keep its stderr open"
        ) from late
    words = said.decode(errors="replace").strip()[-_MOST_WORDS:]
    check.require(process.returncode == 0, f"{command!r} ended with {process.returncode}; {words}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ems-conformance",
        description="Checks that an orchestrator, or a simulator, keeps the contract: docs/conformance.md. TAP.",
        epilog=_EPILOG,
    )
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--config", metavar="FILE", help="the configuration of a run that completes at once")
    both.add_argument("--long-config", metavar="FILE", help="the configuration of a run that takes some seconds")
    both.add_argument("--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for each run and wait; 60")
    both.add_argument("--check", action="append", metavar="NAME", help="only this check; may be given again")
    both.add_argument("--list", action="store_true", help="show the checks and do none")
    both.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML too")
    what = parser.add_subparsers(dest="what", required=True, metavar="orchestrator | simulator")

    one = what.add_parser("orchestrator", parents=[both], epilog=_EPILOG, help="check an orchestrator")
    one.add_argument("--orchestrator", metavar="ADDR", default="127.0.0.1:50051", help="HOST:PORT; 127.0.0.1:50051")
    one.add_argument("--server", metavar="URL", default="nats://127.0.0.1:4222", help="NATS; nats://127.0.0.1:4222")
    one.add_argument("--restart-command", metavar="CMD", help="a shell command that restarts the orchestrator")
    one.add_argument("--broker-restart-command", metavar="CMD", help="a shell command that restarts the broker")

    other = what.add_parser("simulator", parents=[both], epilog=_EPILOG, help="check a simulator's command line")
    other.add_argument("--stop-grace-seconds", type=_seconds, default=3.0, metavar="SECONDS", help="after TERM; 3")
    other.add_argument(
        "command", nargs="*", metavar="-- COMMAND", help="its words; {config} and the like are filled in"
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _out(*lines: str) -> None:
    streams.out("\n".join(lines))


def _say(code: int, words: str) -> int:
    streams.say(f"error: {words}")
    return code


def main() -> NoReturn:
    """What the installed command calls."""
    sys.exit(run())


if __name__ == "__main__":
    main()
