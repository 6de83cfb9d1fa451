"""Every attack that this worker once fell to, on the shipped commands: python -m tests.security.attack [NUMBER ...]

Each has servers and a worker of its own, as real processes. Prints a line an attack with what was seen; exits with 1
where one succeeds.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker.core.lifecycle import job
from tests.security import fuzz
from tests.support import another_user, local_platform, servers, wait, whole

STREAMS = ("EMS_PLANS", "SIM_EVENTS", "EMS_STATUS", "EMS_RESULTS", "EMS_DLQ")
BUCKET = "EMS_PLAN_OBJECTS"


@dataclass
class Ground:
    """Where an attack happens: a broker, an orchestrator, a worker that is ready, and an attacker's connection."""

    directory: Path
    broker: servers.NatsServer
    orchestrator: servers.GrpcProgram
    worker: whole.Worker
    attacker: Client

    async def decision(self, plan: bytes, **headers: str) -> dict[str, Any]:
        """Publishes a plan; its decision."""
        ack = await self.attacker.jetstream().publish("ems.experiment.submit", plan, headers=headers or None)

        async def decided() -> dict[str, Any] | None:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                subject = f"ems.experiment.decision.{ack.seq}"
                message = await self.attacker.jetstream().get_last_msg("EMS_STATUS", subject)
                found: dict[str, Any] = json.loads(message.data or b"")
                return found
            return None

        found: dict[str, Any] | None = await wait.until(decided, timeout=60, what="the decision")
        assert found is not None
        return found

    async def completes(self, plan: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
        """Publishes a plan and waits for its end, which has to be a good one."""
        await whole.publish(self.broker.url, plan)
        ended = await whole.ended(self.broker.url, plan["experiment_id"], timeout)
        assert ended["state"] == "completed", ended
        return ended


async def _ignored(error: Exception) -> None:
    """What the attacker's own connection meets when the broker is killed."""


async def unready(worker: whole.Worker, part: str, words: str) -> str:
    """Waits until /readyz names this part with these words; all its words."""

    async def said() -> str:
        code, body = await worker.ask("/readyz")
        found = str(json.loads(body)["troubles"].get(part, "")) if code == 503 else ""
        return found if words in found else ""

    return await wait.until(said, timeout=60, what=f"/readyz to say {words!r} of {part}")


async def reason_of(server: str, experiment_id: str, words: str) -> str:
    """Waits until the experiment's status gives these words as its reason; all of them."""

    async def said() -> str:
        status = await whole.status(server, experiment_id)
        found = str((status or {}).get("reason") or "")
        return found if words in found else ""

    return await wait.until(said, timeout=60, what=f"a status to say {words!r}")


@contextlib.asynccontextmanager
async def ground(
    directory: Path, *, module: str = "tests.support.oracle", flags: tuple[str, ...] = (), **settings: str
) -> AsyncIterator[Ground]:
    async with servers.NatsServer(directory / "nats") as broker:
        server = ("--server", broker.url) if module == "tests.support.oracle" else ()
        log = directory / "orchestrator.log"
        async with servers.GrpcProgram(module, [*server, *flags], log=log) as orchestrator:
            async with whole.Worker(directory, broker.url, orchestrator.target, **settings) as worker:
                client = await nats.connect(
                    broker.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_ignored
                )
                try:
                    yield Ground(directory, broker, orchestrator, worker, client)
                finally:
                    await client.close()
                assert worker.running, f"the worker ended with {worker.exit_code}: {worker.last_words()}"
            assert worker.exit_code == 0, f"the worker ended with {worker.exit_code} at SIGTERM"
            worker.lines()


async def deputy(directory: Path) -> str:
    """Replies that delete streams, end runs, or answer where nobody asked."""
    async with ground(directory, flags=("--hold", "*")) as on:
        await whole.publish(on.broker.url, whole.plan("victim", points=2))

        async def running() -> bool:
            status = await whole.status(on.broker.url, "victim")
            return status is not None and status["counts"]["submitted"] == 2

        await wait.until(running, what="two runs to be submitted")
        before = (await on.attacker.jetstream().stream_info("SIM_EVENTS")).state.messages
        requests = ["ems.api.get", "ems.api.config", "ems.api.list", "$SRV.PING", "$SRV.INFO.ems", "$SRV.STATS.ems"]
        for request in requests:
            for stream in STREAMS:
                await on.attacker.publish(request, b"", reply=f"$JS.API.STREAM.DELETE.{stream}")
                await on.attacker.publish(request, b"", reply=f"$JS.API.STREAM.PURGE.{stream}")
            for subject in (
                "sim.run_completed",
                "sim.run_failed",
                "ems.experiment.submit",
                "ems.experiment.status.victim",
            ):
                body = json.dumps({"simulation_id": "victim-p000000-r000-a1"}).encode()
                await on.attacker.publish(request, body, reply=subject)
        for request in requests:
            if request.startswith("ems"):
                await on.attacker.request(request, b"{}", timeout=5)
        found = {info.config.name for info in await on.attacker.jetstream().streams_info()}
        assert found >= set(STREAMS), f"streams are gone: {set(STREAMS) - found}"
        after = (await on.attacker.jetstream().stream_info("SIM_EVENTS")).state.messages
        assert after == before, "the worker published events for the attacker"
        status = await whole.status(on.broker.url, "victim")
        assert status is not None
        assert status["counts"]["submitted"] == 2, status["counts"]
        _, metrics = await on.worker.ask("/metrics")
        [count] = [line.split()[1] for line in metrics.splitlines() if line.startswith("ems_replies_refused_total")]
        return f"{float(count):.0f} replies refused, every stream and run as before"


async def lost_connections(directory: Path) -> str:
    """The broker is killed again and again, with control lines too long for it in between."""
    async with ground(directory) as on:
        worst = 0.0
        for _ in range(5):
            await fuzz.send_raw(on.broker.port, [b"PUB " + b"x" * 9000 + b" 0\r\n\r\n"] * 5)
            await on.broker.restart(crash=True)
            code, _ = await on.worker.ask("/healthz")
            assert code == 200, "its event loop stands still"
            worst = max(worst, fuzz.megabytes(on.worker.pid))
        await on.worker.ready()
        await on.completes(whole.plan("after", points=2))
        assert worst < fuzz.MOST_MEGABYTES, f"it took {worst:.0f} MB"
        return f"ready after 5 kills, {worst:.0f} MB"


async def long_reply(directory: Path) -> str:
    """Ems-Reply-To of five thousand characters."""
    async with ground(directory) as on:
        long = "_INBOX." + "x" * 5000
        for number in range(3):
            body = json.dumps(whole.plan(f"long-{number}", points=1)).encode()
            assert (await on.decision(body, **{"Ems-Reply-To": long}))["decision"] == "accepted"
        assert (await on.decision(b"{", **{"Ems-Reply-To": long}))["decision"] == "rejected"
        assert not [
            line
            for line in on.worker.lines()
            if line.get("part") == "broker" and "not connected" in line.get("reason", "")
        ]
        return "four plans decided on one connection"


async def metadata(directory: Path) -> str:
    """Object metadata that is none."""
    async with ground(directory) as on:
        digest = "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(b"x").digest()).decode()
        bad: list[Any] = [{"size": "lots"}, [], 5, None, {"nuid": ">", "size": 1, "chunks": 1}]
        bad += [{"nuid": "a", "size": 1, "chunks": 2**40}, {"nuid": "a", "size": -1, "chunks": "1"}]
        for number, info in enumerate(bad):
            name = base64.urlsafe_b64encode(f"o{number}".encode()).decode()
            await on.attacker.jetstream().publish(f"$O.{BUCKET}.M.{name}", json.dumps(info).encode())
            headers = {"Ems-Plan-Object": f"o{number}", "Ems-Plan-Digest": digest}
            decision = await on.decision(b"", **headers)
            assert decision["errors"][0]["code"] == "plan_object_unusable", decision
        return f"{len(bad)} plans rejected"


async def bomb(directory: Path) -> str:
    """Sixteen kilobytes of gzip that hold one long text."""
    async with ground(directory) as on:
        before = fuzz.megabytes(on.worker.pid)
        text = b'{"experiment_id": "bomb", "description": "' + b"a" * (16 * 2**20 - 200) + b'", "x": NaN}'
        packed = gzip.compress(text, 9)
        deciding = asyncio.create_task(on.decision(packed))
        most = before
        while not deciding.done():
            most = max(most, fuzz.megabytes(on.worker.pid))
            await asyncio.sleep(0.01)
        assert (await deciding)["decision"] == "rejected"
        assert most < before + 10 * len(text) / 1e6, f"it took {most - before:.0f} MB"
        return f"{len(packed):,} bytes became {len(text):,}, and {most - before:.0f} MB more were in use at most"


async def suggestions(directory: Path) -> str:
    """Four thousand keys and forty misspelt paths, while others ask."""
    async with ground(directory) as on:
        base = {f"parameter_number_{number}": 1 for number in range(4000)}
        space = {f"parameter_nunber_{number}x": [1, 2] for number in range(40)}
        plan = {"experiment_id": "typos", "base_config": base, "parameter_space": space}
        deciding = asyncio.create_task(on.decision(json.dumps(plan).encode()))
        loop, worst = asyncio.get_running_loop(), 0.0
        while not deciding.done():
            began = loop.time()
            await on.attacker.request("$SRV.PING.ems", timeout=30)
            worst = max(worst, loop.time() - began)
        decision = await deciding
        assert {problem["code"] for problem in decision["errors"]} == {"unknown_path"}, decision["errors"][:2]
        assert worst < 2.0, f"others waited for {worst:.1f} s"
        return f"{len(decision['errors'])} problems; the longest answer to others took {1000 * worst:.0f} ms"


async def other_users(directory: Path) -> str:
    """Another user of the machine, against `ems up`."""
    if os.geteuid() != 0:
        return "not tried: only root can take another user's part"
    up = await local_platform.up(directory)
    try:
        found = another_user.run(
            """
            came_in, could_read = [], []
            for port in given["ports"]:
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                connection.recv(4096)
                connection.sendall(b'CONNECT {"verbose":false,"protocol":1}\\r\\nPING\\r\\n')
                if b"PONG" in connection.recv(4096):
                    came_in.append(port)
            try:
                socket.socket(socket.AF_UNIX).connect(given["orchestrator"])
                came_in.append(given["orchestrator"])
            except OSError:
                pass
            for root in given["directories"]:
                for place, _, files in os.walk(root):
                    could_read += [place, *files]
            print(json.dumps({"came_in": came_in, "could_read": could_read}))
            """,
            {
                "ports": [int(up.addresses["nats_url"].rpartition(":")[2])],
                "orchestrator": up.addresses["orchestrator"].removeprefix("unix:"),
                "directories": [str(directory / "data"), str(Path(up.addresses["context"]).parent)],
            },
        )
    finally:
        await up.program.stop(grace=15)
    assert found == {"came_in": [], "could_read": []}, found
    return "no connection, no file"


async def forged_plan(directory: Path) -> str:
    """A plan published into the inbox on which the worker pulls."""
    async with ground(directory) as on:
        asked: asyncio.Queue[str] = asyncio.Queue()

        async def spy(message: Msg) -> None:
            await asked.put(message.reply)

        await on.attacker.subscribe("$JS.API.CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans", cb=spy)
        await on.attacker.flush()
        await on.completes(whole.plan("honest", points=1))
        async with asyncio.timeout(60):
            inbox = await asked.get()
            while not asked.empty():
                inbox = asked.get_nowait()
        plan = json.dumps(whole.plan("forged", points=1)).encode()
        for reply in ("x", "sim.run_completed", "$JS.API.STREAM.DELETE.EMS_RESULTS"):
            await on.attacker.publish(inbox, plan, reply=reply)
        await on.completes(whole.plan("later", points=1))
        assert await whole.status(on.broker.url, "forged") is None
        return "it was ignored"


async def full_queue(directory: Path) -> str:
    """An orchestrator whose full queue "exceeds maximum size"."""
    words = "the run queue exceeds maximum size, try again later"
    flags = ("--capacity", "100")
    async with ground(directory, module="tests.support.scripted_orchestrator", flags=flags) as on:
        labels = {"abort": "RESOURCE_EXHAUSTED", "words": words}
        await whole.publish(on.broker.url, whole.plan("queued", points=40, labels=labels))
        reason = await reason_of(on.broker.url, "queued", words)
        status = await whole.status(on.broker.url, "queued")
        assert status is not None
        assert status["counts"].get("failed", 0) == 0, status["counts"]
        return f"no job failed; the status says: {reason}"


async def clock(directory: Path) -> str:
    """The wall clock is set back by two hours and right again, then ahead and right again, while jobs are retried."""
    offset = directory / "clock"
    path = f"{Path(__file__).parent / 'clock'}{os.pathsep}{servers.ROOT}"
    env = {"PYTHONPATH": path, "TEST_CLOCK": str(offset)}
    async with ground(directory, flags=("--fail", "*-a1:infrastructure"), **env) as on:
        manifest = on.worker.data_dir / "manifest.db"
        query = (
            "SELECT count(*), max(due_ms) FROM runs JOIN experiments ON experiments.key = experiment "
            "WHERE experiment_id = ? AND attempt = 2"
        )

        async def retried(name: str) -> bool:
            return bool(whole.rows(manifest, query, name)[0][0])

        await whole.publish(on.broker.url, whole.plan("back", points=8))
        await wait.until(lambda: retried("back"), timeout=60, what="second attempts")
        offset.write_text("-7200")
        await wait.until(lambda: "dispatch.clock_set_back" in on.worker.log.read_text(), timeout=60, what="its notice")
        offset.write_text("0")
        assert (await whole.ended(on.broker.url, "back", 60))["state"] == "completed"

        offset.write_text("7200")
        await whole.publish(on.broker.url, whole.plan("ahead", points=8))
        await wait.until(lambda: retried("ahead"), timeout=60, what="second attempts")
        offset.write_text("0")

        def brought_forward() -> bool:
            longest = job.latest_due_ms(time.time_ns() // 1_000_000)
            return bool(whole.rows(manifest, query, "ahead")[0][1] <= longest)

        await wait.until(brought_forward, timeout=60, what="due times that are no later than any pause takes")
        return "retries went on once it was right; those recorded two hours ahead were brought forward"


async def sigterm(directory: Path) -> str:
    """SIGTERM in the middle of single starts, eight times."""
    async with ground(directory, flags=("--no-batch", "--delay", "0.01"), EMS_RPC_WINDOW="4") as on:
        await whole.publish(on.broker.url, whole.plan("many", points=400, replicates=50))
        for _ in range(8):

            async def starting() -> bool:
                _, metrics = await on.worker.ask("/metrics")
                return any(
                    line.startswith('ems_starts_total{outcome="submitted"}') and float(line.split()[1]) > 50
                    for line in metrics.splitlines()
                )

            await wait.until(starting, timeout=30, what="starts")
            await on.worker.stop(grace=20)
            assert on.worker.exit_code == 0, f"exit code {on.worker.exit_code}: {on.worker.last_words()}"
            on.worker.start()
            await on.worker.ready()
        return "exit code 0 each time"


async def _without_right(directory: Path, subject: str) -> str:
    """What /readyz and the status of an experiment say where the worker may not publish to this subject."""
    users = (
        "authorization { users: [ { user: a, password: a }, { user: w, password: w,"
        f' permissions: {{ publish: {{ deny: ["{subject}"] }} }} }} ] }}\n'
    )
    words = subject.removesuffix(".>").removesuffix(".*")
    async with servers.NatsServer(directory / "nats", more=users) as broker:
        admin = broker.url.replace("//", "//a:a@")
        flags = ["--server", admin, "--delay", "2"]
        async with servers.GrpcProgram("tests.support.oracle", flags, log=directory / "oracle.log") as oracle:
            settings = {"EMS_NATS_USER": "w", "EMS_NATS_PASSWORD": "w"}
            worker = whole.Worker(directory, broker.url, oracle.target, **settings)
            worker.start()  # it may never be ready
            try:
                await wait.until(lambda: fuzz.serves(admin), timeout=60, what="the worker to serve")
                await whole.publish(admin, whole.plan("held", points=200, limits={"max_concurrent": 1}))
                said = await unready(worker, "jetstream", words)
                assert "Permissions Violation" in said, said
                reason = await reason_of(admin, "held", words)
                assert reason.startswith("NATS refuses"), reason
            finally:
                await worker.stop(grace=15)
    return said


async def refused_rights(directory: Path) -> str:
    """Rights that are missing, and an orchestrator that is away: /readyz and statuses say so."""
    said = []
    subjects = ("$JS.API.CONSUMER.MSG.NEXT.SIM_EVENTS.>", "ems.experiment.result.*", "$JS.ACK.SIM_EVENTS.>")
    for number, subject in enumerate(subjects):
        said.append(await _without_right(directory / str(number), subject))
    async with ground(directory / "away") as on:
        await on.orchestrator.kill()
        await unready(on.worker, "orchestrator", on.orchestrator.target)
        await whole.publish(on.broker.url, whole.plan("waiting", points=2))
        said.append(await reason_of(on.broker.url, "waiting", on.orchestrator.target))
    return "; ".join(said)


async def hanging_start(directory: Path) -> str:
    """Two of a hundred starts never answer."""
    flags = ("--no-batch", "--hang", "*-p000[02]00-*")
    async with ground(directory, flags=flags, EMS_RPC_DEADLINE_SECONDS="600") as on:
        await whole.publish(on.broker.url, whole.plan("hanging", points=300))

        async def others() -> int:
            status = await whole.status(on.broker.url, "hanging")
            return int((status or {}).get("counts", {}).get("completed", 0)) >= 298

        await wait.until(others, timeout=60, what="all others to complete")
        return "298 of 300 completed while two starts hung"


ATTACKS: tuple[Callable[[Path], Coroutine[Any, Any, str]], ...] = (
    deputy,
    lost_connections,
    long_reply,
    metadata,
    bomb,
    suggestions,
    other_users,
    forged_plan,
    full_queue,
    clock,
    sigterm,
    refused_rights,
    hanging_start,
)


def run(numbers: list[int]) -> int:
    """Runs these attacks, or all; how many succeeded."""
    succeeded = 0
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o711)  # another user shall fail at the platform's own doors
        for number, attack in enumerate(ATTACKS, 1):
            if numbers and number not in numbers:
                continue
            name = (attack.__doc__ or "").strip().rstrip(".")
            directory = Path(scratch) / str(number)
            directory.mkdir(mode=0o711)
            try:
                seen = asyncio.run(attack(directory))
            except Exception as error:  # noqa: BLE001 - whatever an attack does, the others follow
                succeeded += 1
                print(f"{number:2} FAILED  {name}: {type(error).__name__}: {error}", flush=True)
            else:
                print(f"{number:2} held    {name}: {seen}", flush=True)
    return succeeded


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("number", type=int, nargs="*", help="only these attacks")
    return 1 if run(parser.parse_args().number) else 0


if __name__ == "__main__":
    sys.exit(main())
