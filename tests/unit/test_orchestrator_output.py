"""What a run has written is looked up beside the event loop, and never elsewhere, whatever the simulation does."""

import os
import threading
from pathlib import Path

import grpc
import pytest

from ems_worker.local.orchestrator import model, output
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb


async def look(artifacts: dict[str, str]) -> model.LocalRun:
    """A run that reported these artifacts."""
    end = model.RunEnd(artifacts=artifacts)
    return model.LocalRun("run", model.State.COMPLETED, "sha", "exp", False, 1, 2, end, "m1")


async def test_artifacts_are_looked_up_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be thousands of them. A path that is too long isn't looked up at all."""
    (tmp_path / "run" / "output").mkdir(parents=True)
    (tmp_path / "run" / "output" / "file").write_text("x")
    artifacts = {f"a{number}": f"{(tmp_path / 'run' / 'output').as_uri()}/missing{number}" for number in range(3)}
    artifacts["long"] = f"{(tmp_path / 'run' / 'output').as_uri()}/" + "folder/../" * 500 + "file"
    asked: list[str] = []
    threads: set[int] = set()
    realpath = os.path.realpath

    def watched(path: str) -> str:
        asked.append(os.fspath(path))
        threads.add(threading.get_ident())
        return realpath(path)

    monkeypatch.setattr(os.path, "realpath", watched)
    request = pb.GetSimulationOutputRequest(simulation_id="run", kind=pb.OUTPUT_KIND_LIST)
    files = [file async for chunk in output.chunks(request, tmp_path, lambda: look(artifacts)) for file in chunk.files]
    assert [file.artifact for file in files] == ["", "a0", "a1", "a2", "long"]
    assert threading.get_ident() not in threads
    assert max(len(path) for path in asked) <= 4096

    name = "folder/../" * 500 + "file"
    request = pb.GetSimulationOutputRequest(simulation_id="run", kind=pb.OUTPUT_KIND_ARTIFACT, name=name)
    with pytest.raises(output.OutputRefusedError) as refused:
        await anext(output.chunks(request, tmp_path, lambda: look(artifacts)))
    assert refused.value.code == grpc.StatusCode.NOT_FOUND
    assert threading.get_ident() not in threads


async def test_a_directory_that_becomes_a_link_while_it_is_listed_is_left_out(tmp_path: Path) -> None:
    """What the link leads to isn't listed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    root = tmp_path / "runs" / "run" / "output"
    for name in ("x", "y"):
        (root / name).mkdir(parents=True)
        for number in range(300):
            (root / name / f"{number}").touch()
    request = pb.GetSimulationOutputRequest(simulation_id="run", kind=pb.OUTPUT_KIND_LIST)
    listing = output.chunks(request, tmp_path / "runs", lambda: look({}))
    listed = [file.path for file in (await anext(listing)).files]
    other = "y" if listed[0].startswith("x") else "x"
    target = root / other
    target.rename(tmp_path / "moved")
    target.symlink_to(tmp_path / "outside")
    listed += [file.path async for chunk in listing for file in chunk.files]
    assert [path for path in listed if path.endswith("secret")] == []
