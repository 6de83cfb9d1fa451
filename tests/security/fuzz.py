"""Hostile messages on every way into a real worker: python -m tests.security.fuzz [--minutes 30] [--seed 0] [--json]

The worker is the installed command, its broker a real nats-server, its orchestrator one that answers anything at all.
Afterwards the worker has to be the same process, ready, within its memory, with every stream as it was, and an ordinary
plan has to complete. Exits with 1 where one of these doesn't hold, and says which.
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

MOST_MEGABYTES = 200
_BURST = 100
# Messages that the worker hasn't fetched yet, at most: what waits in the broker tries nothing.
_BACKLOG = 2000


@dataclass
class Figures:
    """What was sent, and what became of the worker."""

    seed: int
    seconds: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    refused_by_client: int = 0
    megabytes: float = 0.0
    restarts: int = 0
    log: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def megabytes(pid: int) -> float:
    """Resident memory of a process and of those that it started."""
    total = 0
    family = {pid}
    entries = sorted(int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
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
    """Sends until so many seconds have passed, or so many messages were sent, whichever comes first."""
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
            # Not until it is ready: a lying orchestrator may keep it from that for as long as it likes.
            await wait.until(lambda: serves(broker.url), timeout=60, what="the worker to serve")
            pid, streams = worker.pid, await _streams(broker.url)
            began = time.monotonic()
            await _send(broker, worker, figures, began + seconds, messages)
            figures.seconds = time.monotonic() - began
            honest.touch()
            await _judge(broker, worker, figures, pid, streams)
            await worker.stop(grace=15)
            if worker.exit_code != 0:
                figures.wrong.append(f"it ended with {worker.exit_code} at SIGTERM")
            try:
                figures.log = dict(Counter(line["event"] for line in worker.lines()))
            except AssertionError as error:
                figures.wrong.append(f"its log: {error}")
    return figures


async def _send(
    broker: servers.NatsServer, worker: whole.Worker, figures: Figures, deadline: float, messages: int
) -> None:
    chance = random.Random(figures.seed)
    sent: Counter[str] = Counter()
    client = await nats.connect(broker.url, max_reconnect_attempts=-1, pending_size=64 * 2**20)
    try:
        while time.monotonic() < deadline and sent.total() < messages:
            raw: list[bytes] = []
            for _ in range(_BURST):
                one = payloads.draw(chance)
                sent[one.way] += 1
                if one.raw:
                    raw.append(one.raw)
                    continue
                try:
                    await client.publish(one.subject, one.data, reply=one.reply, headers=dict(one.headers) or None)
                except (nats.errors.Error, ValueError):
                    figures.refused_by_client += 1
            await client.flush(30)
            await send_raw(broker.port, raw)
            figures.megabytes = max(figures.megabytes, megabytes(worker.pid))
            await wait.until(lambda: _keeps_up(worker, client), timeout=300, what="the worker to keep up")
            if not worker.running:
                break
    except AssertionError as error:
        figures.wrong.append(str(error))
    finally:
        figures.sent = dict(sorted(sent.items()))
        await client.close()


async def send_raw(port: int, lines: list[bytes]) -> None:
    """Each on a connection of its own: the server ends those whose control lines it can't read."""
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


async def _judge(
    broker: servers.NatsServer, worker: whole.Worker, figures: Figures, pid: int, streams: dict[str, Any]
) -> None:
    if not worker.running:
        figures.wrong.append(f"the worker ended with {worker.exit_code}: {worker.last_words()}")
        return
    try:
        async with whole.client(broker.url) as client:
            await wait.until(lambda: _backlog(client, 1), timeout=300, what="the worker to read all")
        await worker.ready(timeout=120)
        await whole.publish(broker.url, whole.plan("after-all", points=3))
        ended = await whole.ended(broker.url, "after-all", timeout=120)
        if ended["state"] != "completed":
            figures.wrong.append(f"an ordinary plan ended as {ended['state']}")
    except AssertionError as error:
        figures.wrong.append(f"{error}; /readyz: {await worker.ask('/readyz')}")
    figures.megabytes = max(figures.megabytes, megabytes(worker.pid))
    if worker.pid != pid:
        figures.wrong.append("the worker is another process")
    if await _streams(broker.url) != streams:
        figures.wrong.append("a stream was deleted or made anew")
    if figures.megabytes >= MOST_MEGABYTES:
        figures.wrong.append(f"it took {figures.megabytes:.0f} MB")


async def serves(url: str) -> bool:
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
    return not worker.running or await _backlog(client, _BACKLOG)


async def _backlog(client: Client, most: int) -> bool:
    """Whether fewer plans and events wait than that."""
    jetstream = client.jetstream()
    waiting = [
        (await jetstream.consumer_info(stream, f"ems-worker-{kind}")).num_pending or 0
        for stream, kind in (("EMS_PLANS", "plans"), ("SIM_EVENTS", "events"))
    ]
    return sum(waiting) < most


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--messages", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="directory for the logs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = given.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        figures = asyncio.run(fuzz(directory, seconds=60 * given.minutes, messages=given.messages, seed=given.seed))
    json.dump(asdict(figures), sys.stdout, indent=2)
    print()
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
