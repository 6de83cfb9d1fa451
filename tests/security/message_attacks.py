"""Attacks by messages to the broker: each function carries out one attack and describes its failure."""

import asyncio
import base64
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from tests.security import fuzz
from tests.security.ground import ground
from tests.support import broker, wait, whole

STREAMS = ("EMS_PLANS", "SIM_EVENTS", "EMS_STATUS", "EMS_RESULTS", "EMS_DLQ")
BUCKET = "EMS_PLAN_OBJECTS"
# Reading a plan with a search for every suggestion takes minutes.
_MAX_PROCESSOR_SECONDS = 10.0


async def redirected_replies(directory: Path) -> str:
    """Replies that delete streams, end runs, or are sent to subjects of others."""
    async with ground(directory, flags=("--hold", "*")) as on:
        await whole.publish(on.broker.url, whole.plan("victim", points=2))

        async def submitted() -> bool:
            status = await whole.status(on.broker.url, "victim")
            return status is not None and status["counts"]["submitted"] == 2

        await wait.until(submitted, what="two runs to be submitted")
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
        streams = {info.config.name for info in await on.attacker.jetstream().streams_info()}
        assert streams >= set(STREAMS), f"streams are gone: {set(STREAMS) - streams}"
        after = (await on.attacker.jetstream().stream_info("SIM_EVENTS")).state.messages
        assert after == before, "the worker published events for the attacker"
        status = await whole.status(on.broker.url, "victim")
        assert status is not None
        assert status["counts"]["submitted"] == 2, status["counts"]
        count = await on.metric("ems_replies_refused_total")
        assert count > 0, "no reply was refused"
        return f"{count:.0f} replies refused, every stream and run unchanged"


async def long_reply(directory: Path) -> str:
    """An Ems-Reply-To of five thousand characters."""
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


async def invalid_metadata(directory: Path) -> str:
    """Invalid metadata of plan objects."""
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


async def compression_bomb(directory: Path) -> str:
    """Sixteen kilobytes of gzip that decompress to one long text."""
    async with ground(directory) as on:
        before = peak = fuzz.megabytes(on.worker.pid)
        text = b'{"experiment_id": "bomb", "description": "' + b"a" * (16 * 2**20 - 200) + b'", "x": NaN}'
        packed = gzip.compress(text, 9)
        deciding = asyncio.create_task(on.decision(packed))

        def decided() -> bool:
            nonlocal peak
            peak = max(peak, fuzz.megabytes(on.worker.pid))
            return deciding.done()

        await wait.until(decided, timeout=60, what="the decision")
        assert (await deciding)["decision"] == "rejected"
        assert peak < before + 10 * len(text) / 1e6, f"it took {peak - before:.0f} MB"
        return f"{len(packed):,} bytes became {len(text):,}; memory grew by at most {peak - before:.0f} MB"


async def many_suggestions(directory: Path) -> str:
    """Four thousand keys and forty misspelt paths, while others query the worker."""
    async with ground(directory) as on:
        base = {f"parameter_number_{number}": 1 for number in range(4000)}
        space = {f"parameter_nunber_{number}x": [1, 2] for number in range(40)}
        plan = {"experiment_id": "typos", "base_config": base, "parameter_space": space}
        before = _processor_seconds(on.worker.pid)
        deciding = asyncio.create_task(on.decision(json.dumps(plan).encode()))
        while not deciding.done():
            await on.attacker.request("$SRV.PING.ems", timeout=30)
        decision = await deciding
        assert {problem["code"] for problem in decision["errors"]} == {"unknown_path"}, decision["errors"][:2]
        used = _processor_seconds(on.worker.pid) - before
        assert used < _MAX_PROCESSOR_SECONDS, f"the plan took {used:.1f} s of processor time"
        return f"{len(decision['errors'])} problems in {used:.1f} s of processor time"


async def forged_plan(directory: Path) -> str:
    """A plan published to the inbox for which the worker requests messages."""
    async with ground(directory) as on:
        inboxes: asyncio.Queue[str] = asyncio.Queue()

        async def spy(message: Msg) -> None:
            await inboxes.put(message.reply)

        await on.attacker.subscribe("$JS.API.CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans", cb=spy)
        await broker.subscribed(on.attacker)
        await on.completes(whole.plan("honest", points=1))
        async with asyncio.timeout(60):
            inbox = await inboxes.get()
            while not inboxes.empty():
                inbox = inboxes.get_nowait()
        plan = json.dumps(whole.plan("forged", points=1)).encode()
        for reply in ("x", "sim.run_completed", "$JS.API.STREAM.DELETE.EMS_RESULTS"):
            await on.attacker.publish(inbox, plan, reply=reply)
        await on.completes(whole.plan("later", points=1))
        assert await whole.status(on.broker.url, "forged") is None
        return "the forged plan was ignored"


def _processor_seconds(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
