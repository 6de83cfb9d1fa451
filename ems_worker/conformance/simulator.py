"""The checks of a simulator, whose command runs as under an orchestrator."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ems_worker import errors
from ems_worker.conformance import check, configurations, outcome

_SEED = 42
_OTHER_SEEDS = (43, 44, 45)
_POLL_SECONDS = 0.02
# A simulator that is still loading when TERM comes would only show the system's default behaviour.
_BEFORE_TERM_SECONDS = 1.0
GRACE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """The simulator to check, and how; see `kit.Options`. `grace` is the seconds between TERM and KILL."""

    command: tuple[str, ...]
    short: bytes = configurations.SHORT
    long: bytes = configurations.LONG
    timeout: float = check.TIMEOUT_SECONDS
    grace: float = GRACE_SECONDS
    only: frozenset[str] = frozenset()


@dataclass(slots=True)
class Bench:
    """A session with a simulator: the directory of its runs, and the run that others are compared with."""

    options: Options
    directory: Path
    count: int = 0
    first: outcome.ObservedRun | None = None

    async def finished(self, config: bytes, seed: int = _SEED) -> outcome.ObservedRun:
        """Runs the simulator to its end. Raises Failed if it takes too long or leaves processes behind."""
        run = await self.start(config, seed)
        try:
            try:
                async with asyncio.timeout(self.options.timeout):
                    await run.process.wait()
            except TimeoutError as late:
                raise check.Failed(f"it still runs after {self.options.timeout:g} s: {run.command}") from late
            check.require(not run.group_alive(), f"it ended and left processes in its process group: {run.command}")
        finally:
            await run.kill()
        return run.observed()

    async def completed(self, seed: int = _SEED) -> outcome.ObservedRun:
        """A run of the short configuration, which must succeed; for the first seed always the same run."""
        if seed == _SEED and self.first is not None:
            return self.first
        observed = await self.finished(self.options.short, seed)
        check.require(
            observed.exit_code == 0, f"exit code {observed.exit_code}; {observed.stderr or 'nothing on stderr'}"
        )
        check.require(not observed.problem, observed.problem)
        if seed == _SEED:
            self.first = observed
        return observed

    async def start(self, config: bytes, seed: int) -> "SimulatorRun":
        """Starts the simulator in a new directory. Raises Failed if the command can't be executed."""
        self.count += 1
        name = f"conformance-p{self.count:06d}-r000-a1"
        directory = self.directory / name
        output = directory / "output"
        output.mkdir(parents=True)
        (directory / "config.yaml").write_bytes(config)
        values = {
            "config": str(directory / "config.yaml"),
            "seed": str(seed),
            "simulation_id": name,
            "output_dir": str(output),
        }
        env = {f"SIMULATION_{key.removeprefix('simulation_').upper()}": value for key, value in values.items()}
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            try:
                process = await asyncio.create_subprocess_exec(
                    *_filled(self.options.command, values),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env={**os.environ, **env},
                    start_new_session=True,
                )
            except OSError as failed:
                raise check.Failed(f"the command can't be executed: {failed}") from failed
        return SimulatorRun(process, directory, " ".join(self.options.command))


@dataclass(frozen=True, slots=True)
class SimulatorRun:
    """A run of the simulator that was started."""

    process: asyncio.subprocess.Process
    directory: Path
    command: str

    def observed(self) -> outcome.ObservedRun:
        """How the run ended."""
        output = self.directory / "output"
        result = output / "result.json"
        return outcome.read(
            self.process.returncode or 0,
            stdout=(self.directory / "stdout").read_bytes(),
            stderr=(self.directory / "stderr").read_bytes(),
            result_file=result.read_bytes() if result.exists() else None,
            output=output,
        )

    def group_alive(self) -> bool:
        """Whether its process group still has a process."""
        try:
            os.killpg(self.process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def kill(self) -> None:
        """Kills its process group; harmless if it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


async def completes(bench: Bench) -> None:
    """It ends with exit code 0, given a configuration, a seed, an id and an output directory."""
    await bench.completed()


async def metrics(bench: Bench) -> None:
    """Its result has metrics, all of them numbers or null."""
    observed = await bench.completed()
    check.require(observed.metrics, 'no metrics: print {"metrics": {...}} as a line, or write it into result.json')
    check.require(any(value is not None for value in observed.metrics.values()), "none of its metrics has a value")


async def artifacts(bench: Bench) -> None:
    """The files that its result names exist."""
    observed = await bench.completed()
    if not observed.artifacts:
        raise check.Skipped("its result names no artifacts; they are optional")
    missing = [f"{name} ({path})" for name, path in observed.artifacts.items() if not path.exists()]
    check.require(not missing, f"missing: {', '.join(missing)}")


async def deterministic(bench: Bench) -> None:
    """The same configuration and seed give the same metrics, also in two simultaneous runs."""
    first = await bench.completed()
    pair = await asyncio.gather(*(bench.finished(bench.options.short) for _ in range(2)))
    for other in pair:
        check.require(other.exit_code == 0, f"two runs at once: exit code {other.exit_code}; {other.stderr}")
        check.require(other.metrics == first.metrics, f"first {first.metrics}, then {other.metrics}")


async def seed_counts(bench: Bench) -> None:
    """Another seed gives other metrics."""
    first = await bench.completed()
    for seed in _OTHER_SEEDS:
        if (await bench.completed(seed)).metrics != first.metrics:
            return
    raise check.Skipped(f"{1 + len(_OTHER_SEEDS)} seeds give the same metrics: correct only for a deterministic model")


async def unusable_configuration(bench: Bench) -> None:
    """A configuration that can't be used ends with an exit code for that, and a reason on stderr."""
    observed = await bench.finished(configurations.UNUSABLE)
    code = observed.exit_code
    check.require(code != 0, "exit code 0 for a configuration that isn't even YAML: does it read the file?")
    check.require(
        0 < code < 126, f"exit code {code} stands for a signal or a missing program; 65 is for configurations"
    )
    check.require(observed.stderr, "nothing on stderr: it must say why the run failed")


async def stops(bench: Bench) -> None:
    """After TERM it ends in time and leaves no process."""
    run = await bench.start(bench.options.long, _SEED)
    try:
        if await _ends(run, _BEFORE_TERM_SECONDS):
            raise check.Skipped("the run had ended before TERM: give --long-config a run of some seconds")
        os.killpg(run.process.pid, signal.SIGTERM)
        in_time = await _ends(run, bench.options.grace)
        check.require(in_time, f"it still runs {bench.options.grace:g} s after TERM")
    finally:
        await run.kill()


async def _ends(run: SimulatorRun, timeout: float) -> bool:
    """Whether the process and its process group end within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while run.process.returncode is None or run.group_alive():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _filled(command: Sequence[str], values: dict[str, str]) -> list[str]:
    """The command with every `{name}` of `values` replaced; other braces are left alone."""
    arguments = list(command)
    for name, value in values.items():
        arguments = [argument.replace("{" + name + "}", value) for argument in arguments]
    return arguments


CHECKS = (
    check.of("completes", completes, vital=True),
    check.of("metrics", metrics),
    check.of("artifacts", artifacts),
    check.of("deterministic", deterministic),
    check.of("seed-counts", seed_counts),
    check.of("unusable-configuration", unusable_configuration),
    check.of("stops-on-term", stops),
)
"""In the order in which they run."""


async def run(chosen: Options) -> AsyncIterator[check.FinishedCheck]:
    """Checks a simulator, and yields each check as it ends. Raises EmsError if its files can't be written."""
    try:
        with tempfile.TemporaryDirectory(prefix="ems-conformance-") as directory:
            bench = Bench(chosen, Path(directory))
            async for finished in check.run(check.selected(CHECKS, chosen.only), bench):
                yield finished
    except OSError as failed:
        raise errors.EmsError(f"the simulations' files can't be written: {failed}") from failed
