"""The conformance of a simulator: the command is run as an orchestrator runs it."""

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
# A simulator that is still loading when TERM comes would only prove the system's default.
_BEFORE_TERM_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is checked, and with what; as for an orchestrator. `grace` is the seconds between TERM and KILL."""

    command: tuple[str, ...]
    short: bytes = configurations.SHORT
    long: bytes = configurations.LONG
    timeout: float = 60.0
    grace: float = 3.0
    only: frozenset[str] = frozenset()


@dataclass(slots=True)
class Bench:
    """One run of the kit: where its simulations are, and the result that others are compared with."""

    options: Options
    directory: Path
    count: int = 0
    first: outcome.Outcome | None = None

    async def finished(self, config: bytes, seed: int = _SEED) -> outcome.Outcome:
        """A run to its end. Raises Failed where it takes too long or leaves processes behind."""
        run = await self.start(config, seed)
        try:
            try:
                async with asyncio.timeout(self.options.timeout):
                    await run.process.wait()
            except TimeoutError as late:
                raise check.Failed(f"it still runs after {self.options.timeout:g} s: {run.described}") from late
            check.require(not run.group_alive(), f"it ended and left processes in its process group: {run.described}")
        finally:
            await run.kill()
        return run.outcome()

    async def completed(self, seed: int = _SEED) -> outcome.Outcome:
        """A run of the short configuration, which has to end well; with the first seed always the same run."""
        if seed == _SEED and self.first is not None:
            return self.first
        found = await self.finished(self.options.short, seed)
        check.require(found.exit_code == 0, f"exit code {found.exit_code}; {found.words or 'nothing on stderr'}")
        check.require(not found.problem, found.problem)
        if seed == _SEED:
            self.first = found
        return found

    async def start(self, config: bytes, seed: int) -> "Run":
        """Starts a simulation in a directory of its own. Raises Failed where the command can't be executed."""
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
        return Run(process, directory, " ".join(self.options.command))


@dataclass(frozen=True, slots=True)
class Run:
    """A simulation that was started."""

    process: asyncio.subprocess.Process
    directory: Path
    described: str

    def outcome(self) -> outcome.Outcome:
        """How it ended."""
        output = self.directory / "output"
        result = output / "result.json"
        return outcome.read(
            self.process.returncode or 0,
            (self.directory / "stdout").read_bytes(),
            (self.directory / "stderr").read_bytes(),
            result.read_bytes() if result.exists() else None,
            output,
        )

    def group_alive(self) -> bool:
        """Whether a process of its group is left."""
        try:
            os.killpg(self.process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def kill(self) -> None:
        """Ends all of it; harmless where it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


async def completes(bench: Bench) -> None:
    """With its configuration, seed, id and output directory it ends with exit code 0."""
    await bench.completed()


async def metrics(bench: Bench) -> None:
    """Its result has metrics, and all of them are numbers or null."""
    found = await bench.completed()
    check.require(found.metrics, 'no metrics: print {"metrics": {...}} as a line, or write it into result.json')
    check.require(any(value is not None for value in found.metrics.values()), "none of its metrics has a value")


async def artifacts(bench: Bench) -> None:
    """The files that its result names are there."""
    found = await bench.completed()
    if not found.artifacts:
        raise check.Skipped("its result names no artifacts; they are optional")
    missing = [f"{name} ({path})" for name, path in found.artifacts.items() if not path.exists()]
    check.require(not missing, f"missing: {', '.join(missing)}")


async def deterministic(bench: Bench) -> None:
    """The same configuration and seed give the same metrics, in two runs at once too."""
    first = await bench.completed()
    pair = await asyncio.gather(*(bench.finished(bench.options.short) for _ in range(2)))
    for other in pair:
        check.require(other.exit_code == 0, f"two at once: exit code {other.exit_code}; {other.words}")
        check.require(other.metrics == first.metrics, f"once {first.metrics}, then {other.metrics}")


async def seed_counts(bench: Bench) -> None:
    """Another seed gives other metrics."""
    first = await bench.completed()
    for seed in _OTHER_SEEDS:
        if (await bench.completed(seed)).metrics != first.metrics:
            return
    raise check.Skipped(f"{1 + len(_OTHER_SEEDS)} seeds give the same metrics: right only for a model without chance")


async def unusable_configuration(bench: Bench) -> None:
    """A configuration that can't be used ends with an exit code that says so, and a reason on stderr."""
    found = await bench.finished(configurations.UNUSABLE)
    check.require(found.exit_code != 0, "exit code 0 for a configuration that isn't even YAML: does it read the file?")
    check.require(
        0 < found.exit_code < 126,
        f"exit code {found.exit_code} stands for a signal or a missing program; 65 is for configurations",
    )
    check.require(found.words, "nothing on stderr: nobody will know why the run failed")


async def stops(bench: Bench) -> None:
    """On TERM it ends in time, and leaves no process."""
    run = await bench.start(bench.options.long, _SEED)
    try:
        if await _ends(run, _BEFORE_TERM_SECONDS):
            raise check.Skipped("the run had ended before TERM: give --long-config a run of some seconds")
        os.killpg(run.process.pid, signal.SIGTERM)
        in_time = await _ends(run, bench.options.grace)
        check.require(in_time, f"it still runs {bench.options.grace:g} s after TERM")
    finally:
        await run.kill()


async def _ends(run: Run, timeout: float) -> bool:
    """Whether the process, and all of its group, end within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while run.process.returncode is None or run.group_alive():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _filled(words: Sequence[str], values: dict[str, str]) -> list[str]:
    """The command with every `{name}` of `values` replaced; other braces stay as they are."""
    filled = list(words)
    for name, value in values.items():
        filled = [word.replace("{" + name + "}", value) for word in filled]
    return filled


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


async def run(chosen: Options) -> AsyncIterator[check.Result]:
    """Checks a simulator, and tells of each check as it ends. Raises EmsError where there is no place for its files."""
    try:
        with tempfile.TemporaryDirectory(prefix="ems-conformance-") as directory:
            bench = Bench(chosen, Path(directory))
            async for result in check.run(check.selected(CHECKS, chosen.only), bench):
                yield result
    except OSError as failed:
        raise errors.EmsError(f"the simulations' files can't be written: {failed}") from failed
