"""The store of the local orchestrator guards every change by the state of the run, and forgets runs in time."""

import contextlib
import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker.local import process
from ems_worker.local.orchestrator import events, model, simulation
from ems_worker.local.orchestrator.store import Store, left

ORDER = model.Order("run", b"config", "sha", 1, "exp")
COMPLETED = model.RunEnd(metrics={"population": 12.0})
FAILED = model.RunEnd(model.ErrorKind.SIMULATION, message="too late")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An open store."""
    store = Store(tmp_path / "orchestrator.db")
    await store.open()
    yield store
    await store.close()


async def run_to_end(store: Store, end: model.RunEnd = COMPLETED, *, finished_ns: int = 2) -> model.LocalRun:
    """Takes the run from its order to this end; returns it as it was stored last."""
    await store.admit([ORDER])
    begun = await store.begin("run", host="n17", slot="1")
    assert begun is not None
    running = dataclasses.replace(begun, state=model.State.RUNNING, started_ns=1)
    await store.started(running, events.started(running))
    ended = dataclasses.replace(running, state=end.state, end=end, finished_ns=finished_ns)
    await store.end(ended, events.ended(ended))
    return (await store.get(["run"]))["run"]


async def test_a_run_is_admitted_once(store: Store) -> None:
    """A known id with the same work already exists, with other work it is refused, and nothing else changes."""
    other = dataclasses.replace(ORDER, config_sha="other")
    assert await store.admit([ORDER, ORDER, other]) == [
        model.Admission.ACCEPTED,
        model.Admission.ALREADY_EXISTS,
        model.Admission.OTHER_CONFIG,
    ]
    [run] = await store.open_runs()
    assert (run.state, run.config_sha) == (model.State.QUEUED, "sha")
    assert await store.order("run") == ORDER


async def test_a_queued_run_gets_only_one_slot(store: Store) -> None:
    """Only the first attempt to begin a run succeeds, and unknown runs can't begin."""
    await store.admit([ORDER])
    assert await store.begin("run", host="n17", slot="1") is not None
    assert await store.begin("run", host="n17", slot="1") is None
    assert await store.begin("unknown", host="n17", slot="1") is None


async def test_the_first_end_of_a_run_is_final(store: Store) -> None:
    """A second end changes neither the run nor the events."""
    ended = await run_to_end(store)
    late = dataclasses.replace(ended, state=model.State.FAILED, end=FAILED, finished_ns=3)
    await store.end(late, events.ended(late))
    assert (await store.get(["run"]))["run"] == ended
    stored = [stored.event.message_id for stored in await store.unpublished(10)]
    assert stored == ["run:started", "run:completed"]


async def test_only_running_runs_can_be_paused(store: Store) -> None:
    """A queued or ended run can be neither paused nor resumed, and an ended one can't be stopped."""
    await store.admit([ORDER])
    assert not await store.pause("run")
    await run_to_end(store)
    assert not await store.pause("run")
    assert not await store.resume("run")
    assert not await store.request_stop("run")


async def test_a_run_is_held_and_released_in_the_queue(store: Store) -> None:
    """Only a queued run can be held, and only a held one released; one that is to be stopped stays as it is."""
    await store.admit([ORDER])
    assert not await store.release("run")
    assert await store.hold("run")
    assert not await store.hold("run")
    assert await store.begin("run", host="n17", slot="1") is None
    assert await store.release("run")
    await store.request_stop("run")
    assert not await store.hold("run")


@pytest.mark.parametrize(
    ("paused", "stopped", "after"),
    [
        (False, False, model.State.QUEUED),
        (True, False, model.State.HELD),
        (False, True, model.State.RUNNING),
    ],
)
async def test_an_interrupted_run_starts_again(
    store: Store, tmp_path: Path, paused: bool, stopped: bool, after: model.State
) -> None:
    """It keeps its order, a paused one is held, and one that is to be stopped isn't interrupted."""
    await store.admit([ORDER, dataclasses.replace(ORDER, simulation_id="queued")])
    begun = await store.begin("run", host="n17", slot="1")
    assert begun is not None
    running = dataclasses.replace(begun, state=model.State.RUNNING, started_ns=1)
    await store.started(running, events.started(running))
    if paused:
        await store.pause("run")
    if stopped:
        await store.request_stop("run")
    await store.interrupt(["run", "queued", "unknown"])
    assert left(tmp_path / "orchestrator.db") == model.Left(0 if stopped else 1, 1)
    assert await store.restart("run") is not stopped
    assert not await store.restart("queued")
    run = (await store.get(["run"]))["run"]
    assert (run.state, run.interrupted) == (after, False)
    assert await store.order("run") == ORDER


async def test_a_second_start_is_another_event(store: Store) -> None:
    """The start of a run that a shutdown interrupted has a message id of its own, but the same one at every publish."""
    await store.admit([ORDER])
    for _ in range(2):
        begun = await store.begin("run", host="n17", slot="1")
        assert begun is not None
        running = dataclasses.replace(begun, state=model.State.RUNNING, started_ns=1)
        await store.started(running, events.started(running))
        await store.interrupt(["run"])
        await store.restart("run")
    assert [stored.event.message_id for stored in await store.unpublished(10)] == ["run:started", "run:started:2"]


def test_nothing_is_left_where_nothing_was(tmp_path: Path) -> None:
    """A directory without a database, or with one that can't be read, counts as empty."""
    assert left(tmp_path / "orchestrator.db") == model.Left()
    (tmp_path / "orchestrator.db").write_bytes(b"not a database" * 100)
    assert left(tmp_path / "orchestrator.db") == model.Left()


async def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    """The message says what to do."""
    path = tmp_path / "orchestrator.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE runs (number INTEGER)")
    path.chmod(0o600)
    with pytest.raises(process.PlatformFailed, match=r"another version .* move .* away"):
        await Store(path).open()


async def test_a_run_expires_once_its_events_are_published(store: Store) -> None:
    """A run that ended before the given time is listed when no event of it waits, and its id is then free again."""
    await run_to_end(store, finished_ns=10)
    assert await store.expired(before_ns=100) == []
    await store.published([stored.number for stored in await store.unpublished(10)])
    assert await store.expired(before_ns=10) == []
    assert await store.expired(before_ns=11) == ["run"]
    await store.forget(["run"])
    assert await store.get(["run"]) == {}
    assert await store.admit([ORDER]) == [model.Admission.ACCEPTED]


async def test_a_forgotten_simulation_keeps_only_its_output(tmp_path: Path) -> None:
    """The directory of a run loses everything but the output, and is deleted if there is none."""
    for name, output in (("with", ["series.csv"]), ("without", [])):
        run = simulation.Simulation(tmp_path / name)
        run.output.mkdir(parents=True)
        for file in ("exit", "stdout", "stderr", "config.yaml"):
            (run.directory / file).touch()
        assert run.forbid()
        for file in output:
            (run.output / file).touch()
        run.forget()
        assert run.directory.exists() == bool(output)
        assert [path.name for path in run.directory.glob("**/*") if not path.is_dir()] == output


async def test_a_damaged_database_is_an_error_with_its_path(tmp_path: Path) -> None:
    """The orchestrator does not start with a file that is not a database."""
    (tmp_path / "orchestrator.db").write_bytes(b"not a database" * 100)
    store = Store(tmp_path / "orchestrator.db")
    with pytest.raises(process.PlatformFailed, match=r"orchestrator\.db can't be used"):
        await store.open()
    await store.close()
