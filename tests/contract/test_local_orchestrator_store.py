"""The store of the local orchestrator guards every change by the state of the run, and forgets runs in time."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker.local import process
from ems_worker.local.orchestrator import events, model, simulation
from ems_worker.local.orchestrator.store import Store

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
    begun = await store.begin("run")
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
    assert await store.begin("run") is not None
    assert await store.begin("run") is None
    assert await store.begin("unknown") is None


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
