"""Attacks by failures around a worker: each function carries out one attack and describes its failure."""

import json
import os
import time
from pathlib import Path

from ems_worker.core.lifecycle import job
from tests.security import fuzz
from tests.security.ground import ground, reason_of, unready
from tests.support import another_user, local_platform, servers, wait, whole


async def lost_connections(directory: Path) -> str:
    """The broker is killed repeatedly, with overlong control lines in between."""
    async with ground(directory) as on:
        peak = 0.0
        for _ in range(5):
            await fuzz.send_raw(on.broker.port, [b"PUB " + b"x" * 9000 + b" 0\r\n\r\n"] * 5)
            await on.broker.restart(crash=True)
            code, _ = await on.worker.ask("/healthz")
            assert code == 200, "the event loop is blocked"
            peak = max(peak, fuzz.megabytes(on.worker.pid))
        await on.worker.ready()
        await on.completes(whole.plan("after", points=2))
        assert peak < fuzz.MAX_MEGABYTES, f"it took {peak:.0f} MB"
        return f"ready after 5 kills, {peak:.0f} MB"


async def other_users(directory: Path) -> str:
    """Another user of the machine, against `ems up`."""
    if os.geteuid() != 0:
        return "not tried: only root can run code as another user"
    up = await local_platform.up(directory)
    try:
        successes = another_user.run(
            """
            connected, readable = [], []
            for port in given["ports"]:
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                connection.recv(4096)
                connection.sendall(b'CONNECT {"verbose":false,"protocol":1}\\r\\nPING\\r\\n')
                if b"PONG" in connection.recv(4096):
                    connected.append(port)
            try:
                socket.socket(socket.AF_UNIX).connect(given["orchestrator"])
                connected.append(given["orchestrator"])
            except OSError:
                pass
            for root in given["directories"]:
                for directory, _, files in os.walk(root):
                    readable += [directory, *files]
            print(json.dumps({"connected": connected, "readable": readable}))
            """,
            {
                "ports": [int(up.addresses["nats_url"].rpartition(":")[2])],
                "orchestrator": up.addresses["orchestrator"].removeprefix("unix:"),
                "directories": [str(directory / "data"), str(Path(up.addresses["context"]).parent)],
            },
        )
    finally:
        await up.program.stop(grace=15)
    assert successes == {"connected": [], "readable": []}, successes
    return "no connection, no file"


async def full_queue(directory: Path) -> str:
    """An orchestrator whose full queue "exceeds maximum size"."""
    message = "the run queue exceeds maximum size, try again later"
    flags = ("--capacity", "100")
    async with ground(directory, module="tests.support.scripted_orchestrator", flags=flags) as on:
        labels = {"abort": "RESOURCE_EXHAUSTED", "message": message}
        await whole.publish(on.broker.url, whole.plan("queued", points=40, labels=labels))
        reason = await reason_of(on.broker.url, "queued", message)
        status = await whole.status(on.broker.url, "queued")
        assert status is not None
        assert status["counts"].get("failed", 0) == 0, status["counts"]
        return f"no job failed; the reason in the status: {reason}"


async def clock(directory: Path) -> str:
    """The wall clock is set back by two hours and corrected, then ahead and corrected, while jobs are retried."""
    offset = directory / "clock"
    path = f"{Path(__file__).parent / 'clock'}{os.pathsep}{servers.ROOT}"
    env = {"PYTHONPATH": path, "TEST_CLOCK": str(offset)}
    async with ground(directory, flags=("--fail", "*-a1:infrastructure"), **env) as on:
        manifest = on.worker.data_dir / "manifest.db"
        query = (
            "SELECT count(*), max(due_ms) FROM runs JOIN experiments ON experiments.key = experiment "
            "WHERE experiment_id = ? AND attempt = 2"
        )

        def retried(name: str) -> bool:
            return bool(whole.rows(manifest, query, name)[0][0])

        await whole.publish(on.broker.url, whole.plan("back", points=8))
        await wait.until(lambda: retried("back"), timeout=60, what="second attempts")
        offset.write_text("-7200")
        log = on.worker.log
        await wait.until(lambda: "dispatch.clock_set_back" in log.read_text(), timeout=60, what="the log event")
        offset.write_text("0")
        assert (await whole.ended(on.broker.url, "back", 60))["state"] == "completed"

        offset.write_text("7200")
        await whole.publish(on.broker.url, whole.plan("ahead", points=8))
        await wait.until(lambda: retried("ahead"), timeout=60, what="second attempts")
        offset.write_text("0")

        def brought_forward() -> bool:
            latest = job.latest_due_ms(time.time_ns() // 1_000_000)
            return bool(whole.rows(manifest, query, "ahead")[0][1] <= latest)

        await wait.until(brought_forward, timeout=60, what="due times within the longest pause before a retry")
        return "retries continued once the clock was right; those recorded two hours ahead were brought forward"


async def sigterm(directory: Path) -> str:
    """SIGTERM while runs are being started one by one, eight times."""
    async with ground(directory, flags=("--no-batch", "--delay", "0.01"), EMS_RPC_WINDOW="4") as on:
        await whole.publish(on.broker.url, whole.plan("many", points=400, replicates=50))
        for _ in range(8):

            async def starting() -> bool:
                return await on.metric('ems_starts_total{outcome="submitted"}') > 50

            await wait.until(starting, timeout=30, what="starts")
            await on.worker.stop(grace=20)
            assert on.worker.exit_code == 0, f"exit code {on.worker.exit_code}: {on.worker.last_words()}"
            on.worker.start()
            await on.worker.ready()
        return "exit code 0 each time"


async def missing_rights(directory: Path) -> str:
    """Missing rights of the worker and an unavailable orchestrator, which /readyz and statuses must report."""
    reports = []
    subjects = ("$JS.API.CONSUMER.MSG.NEXT.SIM_EVENTS.>", "ems.experiment.result.*", "$JS.ACK.SIM_EVENTS.>")
    for number, subject in enumerate(subjects):
        reports.append(await _without_right(directory / str(number), subject))
    async with ground(directory / "away") as on:
        await on.orchestrator.kill()
        await unready(on.worker, "orchestrator", on.orchestrator.target)
        await whole.publish(on.broker.url, whole.plan("waiting", points=2))
        reports.append(await reason_of(on.broker.url, "waiting", on.orchestrator.target))
    return "; ".join(reports)


async def _without_right(directory: Path, subject: str) -> str:
    """The problem on /readyz if the worker may not publish to this subject; the status must have a reason, too."""
    permissions = json.dumps({"publish": {"deny": [subject]}})
    users = (
        "authorization { users: [ { user: a, password: a },"
        f" {{ user: w, password: w, permissions: {permissions} }} ] }}\n"
    )
    named = subject.removesuffix(".>").removesuffix(".*")
    async with servers.NatsServer(directory / "nats", more=users) as broker:
        admin = broker.url.replace("//", "//a:a@")
        flags = ["--server", admin, "--delay", "2"]
        async with servers.GrpcProgram("tests.support.oracle", flags, log=directory / "oracle.log") as oracle:
            settings = {"EMS_NATS_USER": "w", "EMS_NATS_PASSWORD": "w"}
            worker = whole.Worker(directory, broker.url, oracle.target, **settings)
            worker.start()  # without waiting: it may never be ready
            try:
                await wait.until(lambda: fuzz.serves(admin), timeout=60, what="the worker to serve")
                await whole.publish(admin, whole.plan("blocked", points=200, limits={"max_concurrent": 1}))
                problem = await unready(worker, "jetstream", named)
                assert "Permissions Violation" in problem, problem
                reason = await reason_of(admin, "blocked", named)
                assert reason.startswith("NATS refuses"), reason
            finally:
                await worker.stop(grace=15)
    return problem


async def hanging_start(directory: Path) -> str:
    """Two of three hundred starts never answer."""
    flags = ("--no-batch", "--hang", "*-p000[02]00-*")
    async with ground(directory, flags=flags, EMS_RPC_DEADLINE_SECONDS="600") as on:
        await whole.publish(on.broker.url, whole.plan("hanging", points=300))

        async def others_completed() -> bool:
            status = await whole.status(on.broker.url, "hanging")
            return int((status or {}).get("counts", {}).get("completed", 0)) >= 298

        await wait.until(others_completed, timeout=60, what="all other jobs to complete")
        return "298 of 300 completed while two starts were hanging"
