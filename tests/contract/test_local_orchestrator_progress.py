"""The local orchestrator reports where runs are and how far they have come."""

import asyncio
import functools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems_worker.local.orchestrator import model
from ems_worker.local.orchestrator.progress import Progress
from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, servers, wait
from tests.support.shell_simulations import starts, until_released

SECOND_NS = 10**9


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


async def test_events_and_statuses_name_host_and_slot(broker: servers.NatsServer, tmp_path: Path) -> None:
    """The host is the machine's name; each of two runs at once has a slot of its own, from 1, also after a crash."""

    def started(name: str) -> bool:
        return name in starts(tmp_path)

    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        for name in ("place-one", "place-two"):
            await orchestrator.begin(name, until_released(tmp_path))
            await wait.until(functools.partial(started, name), what="the simulation to start")
        await orchestrator.restart(crash=True)
        (tmp_path / "go").touch()
        for name, slot in (("place-one", "1"), ("place-two", "2")):
            status = await orchestrator.ends(name)
            assert (status.host, status.slot) == (socket.gethostname(), slot)
            for event in await local_orchestrator.published(broker.url, name, "completed"):
                assert isinstance(event.payload, run_events_pb2.RunStarted | run_events_pb2.RunCompleted)
                assert (event.payload.host, event.payload.slot) == (socket.gethostname(), slot)
        await orchestrator.begin("place-failed", "exit 1")
        [*_, failed] = await local_orchestrator.published(broker.url, "place-failed", "failed")
        assert isinstance(failed.payload, run_events_pb2.RunFailed)
        assert (failed.payload.host, failed.payload.slot) == (socket.gethostname(), "1")


async def test_progress_is_published_while_a_run_is_open(broker: servers.NatsServer, tmp_path: Path) -> None:
    """What the simulation writes to progress.json is an event, and a short run has none."""
    script = f"""echo '{{"step": 3, "total": 12}}' > $SIMULATION_OUTPUT_DIR/progress.json; {until_released(tmp_path)}"""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        await orchestrator.begin("progress-long", script)
        [*_, event] = await local_orchestrator.published(broker.url, "progress-long", "metrics")
        assert isinstance(event.payload, run_events_pb2.RunMetrics)
        assert (event.payload.step, event.payload.total, dict(event.payload.metrics)) == (3.0, 12.0, {})
        (tmp_path / "go").touch()
        await orchestrator.ends("progress-long")
        await orchestrator.begin("progress-short", script)
        await local_orchestrator.published(broker.url, "progress-short", "completed")
        kinds = [event.subject for event in await local_orchestrator.events(broker.url, "progress-short")]
        assert kinds == ["sim.run_started", "sim.run_completed"]


class Watched:
    """Slots with one run, which began at time 0, and what is published of its progress."""

    def __init__(self, output: Path) -> None:
        self.file = output / "progress.json"
        self.published: list[tuple[float, float | None]] = []
        run = model.LocalRun("a", model.State.RUNNING, "sha", "exp", False, 1, 0, model.RunEnd(), "")
        self.runs = [(run, output)]
        self._progress = Progress(self, self._publish)  # type: ignore[arg-type]  # only `running` is used

    def running(self) -> list[tuple[model.LocalRun, Path]]:
        return self.runs

    async def _publish(self, event: model.Event) -> None:
        envelope = envelope_pb2.GenericEventRequest.FromString(event.body)
        payload = run_events_pb2.RunMetrics.FromString(envelope.event_payload)
        self.published.append((payload.step, payload.total if payload.HasField("total") else None))

    async def at(self, second: float, step: float) -> list[tuple[float, float | None]]:
        """What is published in all once the simulation has written this step and the time is `second`."""
        self.file.write_text(json.dumps({"step": step, "total": 100_000, "written": second}))
        await self._progress.check(second, int(second * SECOND_NS) + 1)
        return self.published

    async def given(self, written: str) -> list[tuple[float, float | None]]:
        """What is published in all of a file with this content, long after the start."""
        self.file.write_text(written)
        await self._progress.check(10.0, 10 * SECOND_NS)
        return self.published


async def test_progress_is_published_at_most_once_a_second(tmp_path: Path) -> None:
    """Never in the first second, then once a second, and of a long run more rarely."""
    watched = Watched(tmp_path)
    assert await watched.at(0.9, 1) == []
    assert [step for step, _ in await watched.at(1.1, 2)] == [2]
    assert [step for step, _ in await watched.at(2.0, 3)] == [2]
    assert [step for step, _ in await watched.at(2.2, 4)] == [2, 4]
    assert [step for step, _ in await watched.at(1000.0, 5)] == [2, 4, 5]
    assert [step for step, _ in await watched.at(1009.0, 6)] == [2, 4, 5]
    assert [step for step, _ in await watched.at(1011.0, 7)] == [2, 4, 5, 7]
    watched.runs.clear()
    assert len(await watched.at(2000.0, 8)) == 4


async def test_progress_that_has_not_changed_is_not_published_again(tmp_path: Path) -> None:
    """A file is published once."""
    watched = Watched(tmp_path)
    await watched.at(5.0, 1)
    await watched._progress.check(50.0, 50 * SECOND_NS)
    assert len(watched.published) == 1


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ('{"step": 7}', [(7.0, None)]),
        ('{"step": 0, "total": 0}', [(0.0, None)]),
        ('{"step": 1e400, "total": 5}', []),
        ('{"step": true}', []),
        ('{"step": "7"}', []),
        ('{"step": -1}', []),
        ('{"total": 5}', []),
        ('{"step": 7, "tot', []),
        ("[7]", []),
        ("[" * 2000, []),
        ('{"step": 7, "more": "' + "x" * 5000 + '"}', []),
        ("", []),
    ],
)
async def test_only_usable_progress_is_published(
    tmp_path: Path, written: str, published: list[tuple[float, float | None]]
) -> None:
    """A file that is half written, too large or without a step is passed over."""
    assert await Watched(tmp_path).given(written) == published


async def test_a_file_that_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a FIFO would block the orchestrator."""
    watched = Watched(tmp_path)
    os.mkfifo(watched.file)
    await watched._progress.check(10.0, 10 * SECOND_NS)
    assert watched.published == []
