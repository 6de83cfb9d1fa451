"""Sends hostile messages to every input of a real worker: python -m tests.security.fuzz [--minutes 30] [--seed 0]

The worker is the installed command, its broker a real nats-server, and its orchestrator answers at random. Afterwards
the worker must be the same process, ready, and within its memory limit, every stream must be unchanged, and an ordinary
plan must complete. Prints figures as JSON; the exit code is 1 if one of these conditions fails.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from tests.security import payloads
from tests.support import servers, wait, whole

MAX_MEGABYTES = 200
_BURST = 100
# The maximum number of messages that the worker hasn't fetched: messages that wait in the broker test nothing.
_MAX_BACKLOG = 2000


@dataclass
class Figures:
    """The messages that were sent, their effect on the worker, and the conditions that failed."""

    seed: int
    seconds: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    refused_by_client: int = 0
    megabytes: float = 0.0
    restarts: int = 0
    log: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def megabytes(pid: int) -> float:
    """Resident memory of a process and its descendants."""
    total = 0
    family = {pid}
    entries = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    for number in entries:
        try:
            stat = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            if number == pid or int(stat[1]) in family:
                family.add(number)
                total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * 4096
        except (OSError, IndexError):
            continue
    return total / 1e6


async def fuzz(directory: Path, *, seconds: float, messages: int, seed: int) -> Figures:
    """Sends messages until the time or the number of messages is reached, then checks all conditions."""
    figures = Figures(seed)
    honest = directory / "honest"
    async with servers.NatsServer(directory / "nats") as broker:
        flags = ["--server", broker.url, "--honest", str(honest), "--seed", str(seed)]
        async with servers.GrpcProgram("tests.security.liar", flags, log=directory / "liar.log") as orchestrator:
            worker = whole.Worker(
                directory,
                broker.url,
                orchestrator.target,
                EMS_RPC_DEADLINE_SECONDS="2",
                EMS_RUN_TIMEOUT_SECONDS="5",
                EMS_STOP_CONFIRM_SECONDS="1",
                EMS_PLANS_PER_MINUTE="100000",
                EMS_PLANS_PER_MINUTE_TOTAL="100000",
                EMS_PARKED_SECONDS="30",
            )
            worker.start()
            # The random answers of the orchestrator may keep the worker from becoming ready, so we don't wait for that.
            await wait.until(lambda: serves(broker.url), timeout=60, what="the worker to serve")
            pid, streams = worker.pid, await _streams(broker.url)
            began = time.monotonic()
            await _send(broker, worker, figures, deadline=began + seconds, messages=messages)
            figures.seconds = time.monotonic() - began
            honest.touch()
            await _check(broker, worker, figures, pid=pid, streams=streams)
            await worker.stop(grace=15)
            if worker.exit_code != 0:
                figures.problems.append(f"the worker ended with {worker.exit_code} at SIGTERM")
            try:
                figures.log = dict(Counter(line["event"] for line in worker.lines()))
            except AssertionError as error:
                figures.problems.append(f"the log of the worker: {error}")
    return figures


async def _send(
    broker: servers.NatsServer, worker: whole.Worker, figures: Figures, *, deadline: float, messages: int
) -> None:
    chance = random.Random(figures.seed)
    sent: Counter[str] = Counter()
    client = await nats.connect(broker.url, max_reconnect_attempts=-1, pending_size=64 * 2**20)
    try:
        while time.monotonic() < deadline and sent.total() < messages:
            raw: list[bytes] = []
            for _ in range(_BURST):
                hostile = payloads.draw(chance)
                sent[hostile.way] += 1
                if hostile.raw:
                    raw.append(hostile.raw)
                    continue
                headers = dict(hostile.headers) or None
                try:
                    await client.publish(hostile.subject, hostile.data, reply=hostile.reply, headers=headers)
                except (nats.errors.Error, ValueError):
                    figures.refused_by_client += 1
            await client.flush(30)
            await send_raw(broker.port, raw)
            figures.megabytes = max(figures.megabytes, megabytes(worker.pid))
            await wait.until(lambda: _keeps_up(worker, client), timeout=300, what="the worker to keep up")
            if not worker.running:
                break
    except AssertionError as error:
        figures.problems.append(str(error))
    finally:
        figures.sent = dict(sorted(sent.items()))
        await client.close()


async def send_raw(port: int, lines: list[bytes]) -> None:
    """Sends each line on its own connection, since the server closes connections with invalid control lines."""
    for line in lines:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"protocol":1}\r\n' + line + b"PING\r\n")
        try:
            async with asyncio.timeout(5):
                await reader.readline()
        except (TimeoutError, OSError):
            pass
        writer.close()


async def _check(
    broker: servers.NatsServer, worker: whole.Worker, figures: Figures, *, pid: int, streams: dict[str, Any]
) -> None:
    if not worker.running:
        figures.problems.append(f"the worker ended with {worker.exit_code}: {worker.last_words()}")
        return
    try:
        async with whole.client(broker.url) as client:
            await wait.until(lambda: _backlog_below(client, 1), timeout=300, what="the worker to read all")
        await worker.ready(timeout=120)
        await whole.publish(broker.url, whole.plan("after-all", points=3))
        ended = await whole.ended(broker.url, "after-all", timeout=120)
        if ended["state"] != "completed":
            figures.problems.append(f"an ordinary plan ended as {ended['state']}")
    except AssertionError as error:
        figures.problems.append(f"{error}; /readyz: {await worker.ask('/readyz')}")
    figures.megabytes = max(figures.megabytes, megabytes(worker.pid))
    if worker.pid != pid:
        figures.problems.append("the worker is another process")
    if await _streams(broker.url) != streams:
        figures.problems.append("a stream was deleted or recreated")
    if figures.megabytes >= MAX_MEGABYTES:
        figures.problems.append(f"the worker used {figures.megabytes:.0f} MB")


async def serves(url: str) -> bool:
    """Whether a worker answers queries."""
    async with whole.client(url) as client:
        try:
            await client.request("$SRV.PING.ems", timeout=1)
        except nats.errors.Error:
            return False
    return True


async def _streams(url: str) -> dict[str, Any]:
    async with whole.client(url) as client:
        return {info.config.name or "": str(info.created) for info in await client.jetstream().streams_info()}


async def _keeps_up(worker: whole.Worker, client: Client) -> bool:
    return not worker.running or await _backlog_below(client, _MAX_BACKLOG)


async def _backlog_below(client: Client, limit: int) -> bool:
    """Whether fewer plans and events than `limit` wait in the broker."""
    jetstream = client.jetstream()
    waiting = [
        (await jetstream.consumer_info(stream, f"ems-worker-{kind}")).num_pending or 0
        for stream, kind in (("EMS_PLANS", "plans"), ("SIM_EVENTS", "events"))
    ]
    return sum(waiting) < limit


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--messages", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the logs in this directory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = given.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        figures = asyncio.run(fuzz(directory, seconds=60 * given.minutes, messages=given.messages, seed=given.seed))
    json.dump(asdict(figures), sys.stdout, indent=2)
    print()
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
