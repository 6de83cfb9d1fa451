"""A simulation decides what its files are: the orchestrator waits for none of them."""

import os
import threading
from pathlib import Path

import pytest

from ems_worker.local.orchestrator import carrier, command, events, model, simulation, simulators
from ems_worker.local.orchestrator.store import Store


def ended(directory: Path) -> simulation.Simulation:
    """A simulation that has ended with the exit code 0 and a metric in its output."""
    (directory / "output").mkdir(parents=True)
    (directory / "exit").write_text("0\n")
    (directory / "stdout").write_text('{"metrics": {"a": 1}}\n')
    (directory / "stderr").touch()
    return simulation.Simulation(directory)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["output/result.json", "output/metrics.json", "stderr"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """It counts as if there were no such file."""
    run = ended(tmp_path / "run")
    (run.directory / name).unlink(missing_ok=True)
    os.mkfifo(run.directory / name)
    assert run.end() == model.RunEnd(metrics={"a": 1.0})


@pytest.mark.timeout(20)
def test_a_pipe_is_no_exit_code(tmp_path: Path) -> None:
    """The run then has vanished."""
    run = ended(tmp_path / "run")
    (run.directory / "exit").unlink()
    os.mkfifo(run.directory / "exit")
    assert run.end().error_kind is model.ErrorKind.INFRASTRUCTURE


async def test_an_end_is_judged_beside_the_event_loop(tmp_path: Path) -> None:
    """However long it takes, the orchestrator answers meanwhile."""
    threads: list[int] = []

    class Watched(simulation.Simulation):
        def end(self) -> model.RunEnd:
            threads.append(threading.get_ident())
            return super().end()

    ended(tmp_path / "run")
    run = Watched(tmp_path / "run")
    assert run.forbid()
    store = Store(tmp_path / "orchestrator.db")
    await store.open()
    try:
        await store.admit([model.Order("run", b"", "sha", 1, "exp")])
        await store.begin("run", host="n17", slot="1")
        local = model.LocalRun("run", model.State.RUNNING, "sha", "exp", False, 1, 0, model.RunEnd(), "m1")
        await store.started(local, events.started(local))
        known = simulators.Simulators(tmp_path, command.Command.parse("true"), "m1")
        carries = carrier.Carrier(store, simulators=known, stop_grace_seconds=1, on_event=lambda: None)
        await carries.carry_through(carrier.Live(1, run), local)
        stored = (await store.get(["run"]))["run"]
    finally:
        await store.close()
    assert stored.end.metrics == {"a": 1.0}
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
