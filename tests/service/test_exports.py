"""The manifest file of an ended experiment has what `ems export` makes of the manifest, however it came about."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import pytest

from ems_worker.adapters import files
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.daemon import exports
from ems_worker.service.ledger.live import Live
from tests.support.desk import Desk, plan

LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "silent")
# Jobs end for good: no failure is retried by itself, and none fails the experiment.
PATIENT: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": "100%"}}


def opened(tmp_path: Path) -> contextlib.AbstractAsyncContextManager[Desk]:
    """A worker with a directory for its manifest files."""
    return Desk.open(tmp_path, export_dir=tmp_path / "exports")


@contextlib.contextmanager
def reads_of(desk: Desk) -> Iterator[MagicMock]:
    """Counts how often the manifest is read for a file."""
    with patch.object(desk.manifest, "export", wraps=desk.manifest.export) as export:
        yield export


async def exported(desk: Desk, tmp_path: Path) -> bytes:
    """What `ems export` makes of the manifest."""
    record = await desk.manifest.experiment("reef")
    assert record is not None
    path = await files.write_manifest(tmp_path / "expected", "reef", desk.manifest.export(record.key))
    return path.read_bytes()


def written(desk: Desk) -> bytes:
    """The manifest file. Nothing else is left beside it."""
    assert [path.name for path in desk.settings.exports.iterdir()] == ["reef.manifest.jsonl"]
    return (desk.settings.exports / "reef.manifest.jsonl").read_bytes()


async def steered(desk: Desk, live: Live, verb: str, **request: Any) -> None:
    """Carries out a change to its end."""
    reply = await desk.steer(verb, **request)
    assert reply.get("changed"), reply
    await desk.services.executor.finish(live)
    while live.expands:
        await desk.expander.expand(live)
        await desk.services.executor.finish(live)


async def test_the_file_has_the_published_results(tmp_path: Path) -> None:
    """The manifest isn't read. The lines are in the order of the jobs, and a job has the line of its last end."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=3, replicates=2, labels={"who": "me"}, **PATIENT))
        names = await desk.launch(live)
        with reads_of(desk) as reads:
            await desk.complete(names[4:5], [5])
            await desk.ledger.hear([((live.key, 2, 1, 1), LOSE)])
            await desk.report("reef")
            await desk.complete(names[5:], [6])
            await desk.hear("failed", names[0], error_kind="simulation", message="no \N{FISH}\n at all")
            await desk.complete(names[3:0:-1], [4, 3, 2])
            assert (await desk.report("reef"))["state"] == "completed"
            assert not reads.called
        assert len(written(desk).splitlines()) == 6
        assert written(desk) == await exported(desk, tmp_path)


Action = Callable[[Desk, Live, str], Awaitable[None]]


async def ends_late(desk: Desk, live: Live, name: str) -> None:
    await desk.hear("completed", name, metrics={"population": 9}, artifacts={"late": "file:///late"})


async def is_told_more(desk: Desk, live: Live, name: str) -> None:
    await desk.hear("started", name, host="n17", slot="3")
    await desk.hear("metrics", name, metrics={"population": 7, "age": 3})
    await desk.hear("failed", name, error_kind="simulation", message="after all")


async def is_excluded(desk: Desk, live: Live, name: str) -> None:
    await steered(desk, live, "exclude", where="food == 0", reason="bad disk")


async def is_included_again(desk: Desk, live: Live, name: str) -> None:
    await is_excluded(desk, live, name)
    await desk.report("reef")
    await steered(desk, live, "include", where="food == 0")


async def is_retried(desk: Desk, live: Live, name: str) -> None:
    await steered(desk, live, "retry", where="food == 0")
    await desk.complete(await desk.launch(live), [3])


async def is_retried_and_cancelled(desk: Desk, live: Live, name: str) -> None:
    await steered(desk, live, "retry", where="food == 0")
    await steered(desk, live, "cancel", where="food == 0")


async def is_withdrawn(desk: Desk, live: Live, name: str) -> None:
    wanted = plan(points=3, **PATIENT)
    wanted["parameter_space"]["food"] = [1, 2]
    await steered(desk, live, "extend", plan=wanted, withdraw=True)


async def gets_more_replicates(desk: Desk, live: Live, name: str) -> None:
    await steered(desk, live, "extend", replicates=2)
    await desk.complete(await desk.launch(live), [4, 5, 6])


async def gets_more_points(desk: Desk, live: Live, name: str) -> None:
    await steered(desk, live, "extend", plan=plan(points=4, **PATIENT))
    await desk.complete(await desk.launch(live), [4])


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize(
    ("end", "action"),
    [
        *((end, action) for end in ("failed", "lost") for action in (is_retried, is_retried_and_cancelled)),
        *(
            (end, action)
            for end in ("completed", "failed", "lost")
            for action in (ends_late, is_told_more, is_excluded, is_included_again, is_withdrawn)
        ),
        ("completed", gets_more_replicates),
        ("completed", gets_more_points),
    ],
)
async def test_what_becomes_of_a_job_after_its_first_end_is_in_the_file(
    tmp_path: Path, end: str, action: Action, reported: bool
) -> None:
    """Whether its first result is published by then or not. The experiment ends with other jobs."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=3, **PATIENT))
        first, *others = await desk.launch(live)
        if end == "lost":
            await desk.ledger.hear([((live.key, 0, 0, 1), LOSE)])
        else:
            await desk.hear(end, first, metrics={"population": 1})
        await desk.complete(others[:1], [2])
        if reported:
            await desk.report("reef")
            assert len(desk.broker.of("result")) == 2
        await action(desk, live, first)
        await desk.complete(others[1:], [3])
        assert (await desk.report("reef"))["state"] == "completed"
        assert written(desk) == await exported(desk, tmp_path)


async def test_jobs_without_a_result_are_in_the_file(tmp_path: Path) -> None:
    """They were cancelled before they started, and nothing was published about them."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        await desk.complete(await desk.launch(live, 1), [1])
        await desk.report("reef")
        await steered(desk, live, "cancel")
        await desk.report("reef")
        assert len(written(desk).splitlines()) == 3
        assert written(desk) == await exported(desk, tmp_path)


async def test_shortened_values_are_whole_in_the_file(tmp_path: Path) -> None:
    """A result has only the beginning of a long value."""
    async with opened(tmp_path) as desk:
        genomes = {"parameter_space": {"genome": ["a" * 100_000, "b"]}, "base_config": {"genome": ""}}
        live = await desk.begin(plan() | genomes)
        await desk.complete(await desk.launch(live), [1, 2])
        await desk.report("reef")
        assert b"a" * 100_000 in written(desk)
        assert written(desk) == await exported(desk, tmp_path)


async def test_the_file_of_a_round_that_follows_is_made_from_the_manifest(tmp_path: Path) -> None:
    """Only the new ends are published in it."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=2, **PATIENT))
        failed, other = await desk.launch(live)
        await desk.hear("failed", failed, error_kind="simulation")
        await desk.complete([other], [1])
        await desk.report("reef")
        await desk.steer("retry")
        again = desk.ledger.live("reef")
        assert again is not None
        await desk.services.executor.finish(again)
        await desk.complete(await desk.launch(again), [2])
        assert (await desk.report("reef"))["round"] == 2
        assert b'"attempt":2' in written(desk)
        assert written(desk) == await exported(desk, tmp_path)


@pytest.mark.parametrize("published", [1, 3])
async def test_a_worker_that_takes_over_reads_the_manifest_for_what_was_published(
    tmp_path: Path, published: int
) -> None:
    """The lines that the one before collected are deleted, even if there is one for each job."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live)
        await desk.complete(names[:published], [1, 2, 3][:published])
        await desk.reporter.report(live) if published < 3 else await _published(desk, live)
    async with opened(tmp_path) as desk:
        assert [path.name for path in desk.settings.exports.iterdir()] == []
        [live] = desk.ledger.experiments()
        with reads_of(desk) as reads:
            await desk.complete(names[published:], [1, 2, 3][published:])
            desk.reporter.notify(live.key)
            assert (await desk.report("reef"))["state"] == "completed"
            assert reads.called
        assert written(desk) == await exported(desk, tmp_path)


async def _published(desk: Desk, live: Live) -> None:
    """The worker dies after it published all results, and before it writes the file."""

    async def die(_: Live) -> None:
        raise ConnectionAbortedError

    with patch.object(desk.reporter, "write_manifest", die), pytest.raises(ConnectionAbortedError):
        await desk.reporter.report(live)


async def test_results_that_are_published_twice_are_in_the_file_once(tmp_path: Path) -> None:
    """A worker died between the publication and its record. The next one publishes all of them."""

    async def die(*_: object) -> None:
        raise ConnectionAbortedError

    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        await desk.complete(await desk.launch(live), [1, 2, 3])
        with patch.object(desk.manifest, "results_published", die), pytest.raises(ConnectionAbortedError):
            await desk.report("reef")
    async with opened(tmp_path) as desk:
        desk.reporter.notify(desk.ledger.experiments()[0].key)
        with reads_of(desk) as reads:
            await desk.report("reef")
            assert not reads.called
        assert written(desk) == await exported(desk, tmp_path)


@pytest.mark.parametrize("limit", ["_MAX_SPOOLS", "_MAX_JOBS"])
async def test_the_file_of_one_experiment_too_many_is_made_from_the_manifest(tmp_path: Path, limit: str) -> None:
    """Lines are collected of a limited number of experiments and jobs."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        with patch.object(exports, limit, 0), reads_of(desk) as reads:
            await desk.complete(await desk.launch(live), [1, 2])
            await desk.report("reef")
            assert reads.called
        assert written(desk) == await exported(desk, tmp_path)


@pytest.mark.parametrize("when", ["between", "before the file"])
async def test_lines_that_somebody_deleted_are_read_from_the_manifest(tmp_path: Path, when: str) -> None:
    """Another worker with the same directory does so when it starts."""
    async with opened(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        first, second = await desk.launch(live)
        await desk.complete([first], [1])
        await desk.report("reef")
        [lines] = desk.settings.exports.iterdir()
        write = desk.reporter.write_manifest
        assert write is not None

        async def delete_and_write(ended: Live) -> None:
            lines.unlink()
            await write(ended)

        if when == "between":
            lines.unlink()
        else:
            desk.reporter.write_manifest = delete_and_write
        await desk.complete([second], [2])
        assert (await desk.report("reef"))["state"] == "completed"
        assert written(desk) == await exported(desk, tmp_path)


async def test_an_experiment_ends_although_its_file_cannot_be_written(tmp_path: Path) -> None:
    """`ems export` can write it at any time."""
    async with opened(tmp_path) as desk:
        desk.settings.exports.write_text("not a directory")
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])
        assert (await desk.report("reef"))["state"] == "completed"
        assert desk.settings.exports.read_text() == "not a directory"
