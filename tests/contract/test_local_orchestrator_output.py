"""GetSimulationOutput of the local orchestrator: output streams, files and artifacts, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers
from tests.support.shell_simulations import until_released

STDOUT, STDERR = pb.OUTPUT_KIND_STDOUT, pb.OUTPUT_KIND_STDERR
ARTIFACT, LIST = pb.OUTPUT_KIND_ARTIFACT, pb.OUTPUT_KIND_LIST


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def shared(
    broker: servers.NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[local_orchestrator.Orchestrator]:
    """One orchestrator for all tests of this module."""
    orchestrator = local_orchestrator.Orchestrator(broker.url, tmp_path_factory.mktemp("shared"), shared=True)
    yield orchestrator
    asyncio.run(orchestrator.stop(grace=10))


@pytest.fixture
async def orchestrator(shared: local_orchestrator.Orchestrator) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """The shared orchestrator with a channel for this test; its simulations are shell scripts."""
    async with shared:
        yield shared


async def chunks(
    orchestrator: local_orchestrator.Orchestrator, simulation_id: str, kind: pb.OutputKind.ValueType, **more: object
) -> list[pb.OutputChunk]:
    """All chunks of a call."""
    request = pb.GetSimulationOutputRequest(simulation_id=simulation_id, kind=kind, **more)  # type: ignore[arg-type]
    return [chunk async for chunk in orchestrator.calls.GetSimulationOutput(request, timeout=20)]


async def content(
    orchestrator: local_orchestrator.Orchestrator, simulation_id: str, kind: pb.OutputKind.ValueType, **more: object
) -> bytes:
    """The bytes that a call sends."""
    return b"".join([chunk.data for chunk in await chunks(orchestrator, simulation_id, kind, **more)])


async def refusal(
    orchestrator: local_orchestrator.Orchestrator, simulation_id: str, kind: pb.OutputKind.ValueType, **more: object
) -> grpc.StatusCode:
    """The status code of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chunks(orchestrator, simulation_id, kind, **more)
    return refused.value.code()


async def test_the_streams_of_a_run_are_sent_from_an_offset(orchestrator: local_orchestrator.Orchestrator) -> None:
    """Standard output and standard error come separately, from an offset, or from so many bytes before the end."""
    await orchestrator.begin("streams", "echo out; echo err >&2")
    await orchestrator.ends("streams")
    assert await content(orchestrator, "streams", STDOUT) == b"out\n"
    assert await content(orchestrator, "streams", STDERR) == b"err\n"
    assert await content(orchestrator, "streams", STDOUT, offset=2) == b"t\n"
    assert await content(orchestrator, "streams", STDOUT, offset=-3) == b"ut\n"
    assert await content(orchestrator, "streams", STDOUT, offset=-100) == b"out\n"
    [nothing] = await chunks(orchestrator, "streams", STDOUT, offset=4)
    assert (nothing.data, nothing.offset, nothing.size) == (b"", 4, 4)
    assert await refusal(orchestrator, "streams", STDOUT, offset=5) == grpc.StatusCode.OUT_OF_RANGE


async def test_a_large_output_comes_in_small_chunks(orchestrator: local_orchestrator.Orchestrator) -> None:
    """No chunk grows with the output, and each says where it belongs."""
    await orchestrator.begin("large", "head -c 300000 /dev/zero")
    await orchestrator.ends("large")
    sent = await chunks(orchestrator, "large", STDOUT)
    assert [chunk.offset for chunk in sent] == [0, 65536, 131072, 196608, 262144]
    assert {chunk.size for chunk in sent} == {300000}
    assert sum(len(chunk.data) for chunk in sent) == 300000


async def test_a_followed_stream_ends_with_its_run(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """What a run writes is sent as it is written, to its last byte."""
    await orchestrator.begin("followed", f"echo first; {until_released(tmp_path)}; printf last")
    request = pb.GetSimulationOutputRequest(simulation_id="followed", kind=STDOUT, follow=True)
    received = b""
    async for chunk in orchestrator.calls.GetSimulationOutput(request, timeout=20):
        assert chunk.offset == len(received)
        received += chunk.data
        if received == b"first\n":
            (tmp_path / "go").touch()
    assert received.startswith(b"first\n")
    assert received.endswith(b"last")


async def test_the_first_chunk_comes_before_there_is_output(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """Who follows a run that has written nothing learns at once that it is there."""
    await orchestrator.begin("silent", until_released(tmp_path))
    request = pb.GetSimulationOutputRequest(simulation_id="silent", kind=STDERR, follow=True)
    call = orchestrator.calls.GetSimulationOutput(request, timeout=20)
    assert await anext(aiter(call)) == pb.OutputChunk()
    call.cancel()
    (tmp_path / "go").touch()
    await orchestrator.ends("silent")


async def test_files_and_artifacts_are_listed_and_sent_by_name(
    orchestrator: local_orchestrator.Orchestrator,
) -> None:
    """A file is named by its path in the output directory, and by the name under which it was reported."""
    script = """cd "$SIMULATION_OUTPUT_DIR"; mkdir plots; printf abc > series.csv; printf png > plots/a.png
    echo '{"artifacts": {"series": "series.csv", "model": "s3://bucket/model"}}'"""
    await orchestrator.begin("files", script)
    await orchestrator.ends("files")
    listed = [file for chunk in await chunks(orchestrator, "files", LIST) for file in chunk.files]
    by_path = {file.path: (file.size, file.artifact) for file in listed}
    assert by_path == {"series.csv": (3, "series"), "plots/a.png": (3, ""), "": (0, "model")}
    assert [file.uri for file in listed if not file.path] == ["s3://bucket/model"]
    assert all(file.modified_at.seconds > 0 for file in listed if file.path)
    assert await content(orchestrator, "files", ARTIFACT, name="series") == b"abc"
    assert await content(orchestrator, "files", ARTIFACT, name="series.csv", offset=1) == b"bc"
    assert await content(orchestrator, "files", ARTIFACT, name="plots/a.png") == b"png"
    assert await refusal(orchestrator, "files", ARTIFACT, name="model") == grpc.StatusCode.NOT_FOUND


async def test_nothing_outside_the_output_directory_is_sent(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """Neither names nor links nor reported artifacts lead out of the output directory, and a pipe isn't waited for."""
    (tmp_path / "secret").write_text("secret")
    script = f"""cd "$SIMULATION_OUTPUT_DIR"; ln -s {tmp_path}/secret link; ln -s {tmp_path} folder; mkfifo pipe
    printf inside > file; ln -s file alias; mkdir deep; ln -s ../file deep/alias
    echo '{{"artifacts": {{"reported": "file://{tmp_path}/secret", "up": "../stdout"}}}}'"""
    await orchestrator.begin("escapes", script)
    await orchestrator.ends("escapes")
    names = ["link", "folder/secret", "reported", "up", "../stdout", "../../orchestrator.db", "/etc/passwd"]
    names += ["", ".", "..", "pipe", "deep", "a\0b", "x" * 5000, "missing"]
    for name in names:
        assert await refusal(orchestrator, "escapes", ARTIFACT, name=name) == grpc.StatusCode.NOT_FOUND, name
    assert await content(orchestrator, "escapes", ARTIFACT, name="alias") == b"inside"
    assert await content(orchestrator, "escapes", ARTIFACT, name="deep/alias") == b"inside"
    listed = [file for chunk in await chunks(orchestrator, "escapes", LIST) for file in chunk.files]
    assert sorted(file.path for file in listed if file.path) == ["file"]


@pytest.mark.parametrize("replaced", ["output", "."])
async def test_a_simulation_that_replaces_its_directories_by_links_gains_nothing(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path, replaced: str
) -> None:
    """What the links lead to is neither listed nor sent."""
    (tmp_path / "output").mkdir()
    for name in ("secret", "stdout", "output/secret"):
        (tmp_path / name).write_text("secret")
    name = f"replaces-{len(replaced)}"
    run = orchestrator.data_dir / "runs" / name
    await orchestrator.begin(name, "true")
    await orchestrator.ends(name)
    target = run / "output" if replaced == "output" else run
    target.rename(tmp_path / "moved")
    target.symlink_to(tmp_path)
    for asked in ("secret", "output/secret", "../secret"):
        assert await refusal(orchestrator, name, ARTIFACT, name=asked) == grpc.StatusCode.NOT_FOUND
    assert [file for chunk in await chunks(orchestrator, name, LIST) for file in chunk.files] == []
    assert await content(orchestrator, name, STDOUT) == b""


async def test_what_can_not_be_sent_is_refused(orchestrator: local_orchestrator.Orchestrator) -> None:
    """An unknown run is NOT_FOUND; a kind that doesn't exist, or can't be followed, is INVALID_ARGUMENT."""
    await orchestrator.begin("refusals", "true")
    await orchestrator.ends("refusals")
    assert await refusal(orchestrator, "unknown", STDOUT) == grpc.StatusCode.NOT_FOUND
    assert await refusal(orchestrator, "../refusals", STDOUT) == grpc.StatusCode.NOT_FOUND
    unspecified = pb.OUTPUT_KIND_UNSPECIFIED
    assert await refusal(orchestrator, "refusals", unspecified) == grpc.StatusCode.INVALID_ARGUMENT
    assert await refusal(orchestrator, "refusals", LIST, follow=True) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_retried_attempt_finds_what_the_one_before_wrote(
    orchestrator: local_orchestrator.Orchestrator,
) -> None:
    """SIMULATION_RESUME_DIR is the output directory of the last attempt that wrote something; a first one has none."""
    writes = 'echo "${SIMULATION_RESUME_DIR-none}"; echo 1 > "$SIMULATION_OUTPUT_DIR/checkpoint"'
    await orchestrator.begin("job-p000000-r000-a1", writes)
    await orchestrator.ends("job-p000000-r000-a1")
    assert await content(orchestrator, "job-p000000-r000-a1", STDOUT) == b"none\n"
    await orchestrator.begin("job-p000000-r000-a2", "true")
    await orchestrator.ends("job-p000000-r000-a2")
    await orchestrator.begin("job-p000000-r000-a3", 'cat "$SIMULATION_RESUME_DIR/checkpoint"')
    await orchestrator.ends("job-p000000-r000-a3")
    assert await content(orchestrator, "job-p000000-r000-a3", STDOUT) == b"1\n"
