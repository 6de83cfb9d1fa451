"""`ems-conformance`: checks whether an orchestrator or a simulator keeps the contract."""

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
SUITES: dict[str, Sequence[check.Check[Any]]] = {"orchestrator": orchestrator.CHECKS, "simulator": simulator.CHECKS}
_COMMAND_SECONDS = 120.0
_MAX_STDERR_CHARACTERS = 500


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit code."""
    streams.guard()
    given = _parser().parse_args(arguments)
    suite = SUITES[given.target]
    if given.list:
        for each in suite:
            _out(f"{each.name}: {each.meaning}")
        return _OK
    only = frozenset(given.check or ())
    if unknown := only - {each.name for each in suite}:
        return _fail(_USAGE, f"there is no check {', '.join(sorted(unknown))}; --list shows all checks")
    if given.target == "simulator" and not given.command:
        return _fail(_USAGE, "name the simulator: ems-conformance simulator -- COMMAND")
    try:
        short = Path(given.config).read_bytes() if given.config else configurations.SHORT
        long = Path(given.long_config).read_bytes() if given.long_config else configurations.LONG
    except OSError as failed:
        return _fail(_USAGE, f"the configuration can't be read: {failed}")
    checks = check.selected(suite, only)
    try:
        finished = asyncio.run(_print(len(checks), _results(given, short, long, only)))
        if given.junit is not None:
            given.junit.write_bytes(report.junit(f"ems-conformance {given.target}", finished))
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "interrupted")
    except (errors.OrchestratorUnavailable, errors.BrokerUnavailable) as away:
        return _fail(_UNREACHABLE, str(away))
    except errors.EmsError as failed:
        return _fail(_FAILED, str(failed))
    except OSError as failed:
        return _fail(_USAGE, f"the JUnit file can't be written: {failed}")
    return _OK if report.passed(finished) else _FAILED


def _results(
    given: argparse.Namespace, short: bytes, long: bytes, only: frozenset[str]
) -> AsyncIterator[check.FinishedCheck]:
    if given.target == "simulator":
        return simulator.run(
            simulator.Options(
                tuple(given.command),
                short=short,
                long=long,
                timeout=given.timeout,
                grace=given.stop_grace_seconds,
                only=only,
            )
        )
    return orchestrator.run(
        kit.Options(
            orchestrator=given.orchestrator,
            server=given.server,
            short=short,
            long=long,
            timeout=given.timeout,
            restart=_restart(given.restart_command),
            restart_in_order=_restart(given.orderly_restart_command),
            restart_broker=_restart(given.broker_restart_command),
            only=only,
        )
    )


async def _print(count: int, results: AsyncIterator[check.FinishedCheck]) -> Sequence[check.FinishedCheck]:
    """Prints each check as it ends, and returns all of them."""
    finished: list[check.FinishedCheck] = []
    async for each in results:
        if not finished:
            _out(*report.head(count))
        finished.append(each)
        _out(*report.lines(len(finished), each))
    _out(report.summary(finished))
    return finished


def _restart(command: str | None) -> Callable[[], Awaitable[None]] | None:
    return functools.partial(_shell, command) if command else None


async def _shell(command: str) -> None:
    """Runs the user's command to its end. Raises check.Failed with the end of stderr unless its exit code is 0."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            _, stderr = await process.communicate()
    except TimeoutError as late:
        process.kill()
        raise check.Failed(
            f"{command!r} has not ended after {_COMMAND_SECONDS:g} s: what it starts must not keep its stderr open"
        ) from late
    end = stderr.decode(errors="replace").strip()[-_MAX_STDERR_CHARACTERS:]
    check.require(process.returncode == 0, f"{command!r} ended with {process.returncode}; {end}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ems-conformance",
        description="Checks whether an orchestrator, or a simulator, keeps the contract (see docs/conformance.md). "
        "Prints TAP.",
        epilog=_EPILOG,
    )
    common = argparse.ArgumentParser(add_help=False)
    add = functools.partial(_add, common)
    add("--config", "FILE", help="configuration of a run that completes at once")
    add("--long-config", "FILE", help="configuration of a run that takes some seconds")
    add("--timeout", "SECONDS", type=_seconds, default=check.TIMEOUT_SECONDS, help="limit for each run and each wait")
    common.add_argument("--check", action="append", metavar="NAME", help="run only this check; can be repeated")
    common.add_argument("--list", action="store_true", help="list the checks without running them")
    add("--junit", "FILE", type=Path, help="also write the results as JUnit XML")
    targets = parser.add_subparsers(dest="target", required=True, metavar="orchestrator | simulator")

    add = functools.partial(
        _add, targets.add_parser("orchestrator", parents=[common], epilog=_EPILOG, help="check an orchestrator")
    )
    add("--orchestrator", "ADDR", default="127.0.0.1:50051", help="HOST:PORT of the orchestrator")
    add("--server", "URL", default="nats://127.0.0.1:4222", help="NATS server")
    add("--restart-command", "CMD", help="shell command that restarts the orchestrator")
    add("--orderly-restart-command", "CMD", help="shell command that shuts the orchestrator down and starts it again")
    add("--broker-restart-command", "CMD", help="shell command that restarts the broker")

    of_simulator = targets.add_parser("simulator", parents=[common], epilog=_EPILOG, help="check a simulator")
    seconds = simulator.GRACE_SECONDS
    _add(of_simulator, "--stop-grace-seconds", "SECONDS", type=_seconds, default=seconds, help="time to end after TERM")
    of_simulator.add_argument(
        "command", nargs="*", metavar="-- COMMAND", help="command of the simulator; {config} etc. are replaced"
    )
    return parser


def _add(parser: argparse.ArgumentParser, flag: str, metavar: str, *, help: str, **options: Any) -> None:  # noqa: A002
    """Adds an option, with its default in the help text."""
    default = options.get("default")
    shown = f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
    parser.add_argument(flag, metavar=metavar, help=help if default is None else help + shown, **options)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _out(*lines: str) -> None:
    streams.out("\n".join(lines))


def _fail(code: int, message: str) -> int:
    streams.say(f"error: {message}")
    return code


def main() -> NoReturn:
    """The entry point of the installed command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
