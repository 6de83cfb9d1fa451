"""Checks over NATS: the broker, its streams, what this user may do, the worker, the clocks."""

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ems_worker import errors
from ems_worker.adapters.jetstream import streams
from ems_worker.cli.checks import findings
from ems_worker.cli.checks.findings import Finding
from ems_worker.client import bus, connection
from ems_worker.core.documents import subjects
from ems_worker.settings import Access

CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 2.0
_VERSION = re.compile(r"\d+\.\d+[\d.]*\d")
# The worker needs this version of nats-server.
_OLDEST = (2, 10)
_MAX_SKEW_SECONDS = 2.0
_PROVISION = "start a worker, which creates them, or have an administrator do it: ems-worker provision"
# A stream of this name can't be ours: a message that expects it is refused, and not stored.
_NO_STREAM = "EMS_DOCTOR_STORES_NOTHING"
_OTHER_CREDENTIALS = "use credentials of an operator: --context, or EMS_NATS_CREDS or EMS_NATS_NKEY"


@dataclass(frozen=True, slots=True)
class Broker:
    """What was found, and the versions of the broker and the worker as far as they are known."""

    findings: list[Finding]
    server_version: str | None = None
    worker_version: str | None = None


async def check(access: Access) -> Broker:
    """All checks over NATS; only the first if there is no connection."""
    link = connection.Connection(access, timeout=CONNECT_SECONDS, notice=lambda _: None)
    try:
        await link.open()
    except errors.EmsError as error:
        return Broker([findings.failure("broker", "no connection", str(error))])
    try:
        return await _connected(link)
    finally:
        await link.close()


async def _connected(link: connection.Connection) -> Broker:
    named = _VERSION.search(str(link.client.connected_server_version))
    version = "of an unknown version" if named is None else named[0]
    found = [await _broker(link, version)]
    names = [spec.name for spec in streams.SPECS]
    infos = dict(zip(names, await asyncio.gather(*(_info(link, name) for name in names)), strict=True))
    worker = await _worker(link)
    found += [_streams(infos), await _rights(link), worker, clock(infos)]
    return Broker(found, version, await _worker_version(link))


async def _broker(link: connection.Connection, version: str) -> Finding:
    began = time.monotonic()
    try:
        await link.client.flush(timeout=int(_ANSWER_SECONDS))
    except (bus.nats.errors.Error, OSError) as error:
        return findings.failure("broker", f"nats-server {version} does not answer: {error}", "look at its log")
    seen = f"nats-server {version} at {link.servers}, answers in {(time.monotonic() - began) * 1000:.1f} ms"
    if _VERSION.match(version) and tuple(map(int, version.split("."))) < _OLDEST:
        return findings.failure("broker", seen, f"upgrade nats-server to {'.'.join(map(str, _OLDEST))} or newer")
    try:
        await link.require_jetstream(_ANSWER_SECONDS)
    except errors.BrokerMisconfigured as off:
        return findings.failure("broker", seen, str(off))
    return findings.ok("broker", seen)


async def _info(link: connection.Connection, name: str) -> Mapping[str, Any] | None:
    """JetStream's answer about a stream, an error included; None if it doesn't answer, or not to this user."""
    subject = f"{subjects.JETSTREAM_API}.STREAM.INFO.{name}"
    try:
        reply = await link.client.request(subject, b"", timeout=_ANSWER_SECONDS)
        answer = json.loads(reply.data)
    except (bus.nats.errors.Error, OSError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _streams(infos: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """Run events may be in a stream of another name, which only the worker has to find."""
    seen = {name: info for name, info in infos.items() if info is not None}
    missing = [name for name, info in seen.items() if "error" in info and name != streams.EVENTS]
    wrong = [
        f"{spec.name}: {'; '.join(lines)}: {streams.remedy(spec)}"
        for spec in streams.SPECS
        if "config" in (info := seen.get(spec.name) or {}) and (lines := streams.differences(spec, info["config"]))
    ]
    if wrong:
        return findings.failure("streams", f"{len(wrong)} of {len(infos)} are not as they must be", "\n".join(wrong))
    if missing:
        return findings.failure("streams", f"there is no {', '.join(missing)}", _PROVISION)
    if not seen:
        return findings.unknown("streams", "this user may not look at them")
    hidden = len(infos) - len(seen)
    messages = sum(info["state"]["messages"] for info in seen.values() if "state" in info)
    more = f", {hidden} can't be seen by this user" if hidden else ""
    return findings.ok("streams", f"{len(seen)} with {messages:,} messages{more}")


async def _rights(link: connection.Connection) -> Finding:
    """What this user may do. Each probe is one that the broker lets pass or denies, and that has no effect."""
    client = link.client
    harmless = {"group": "ems-doctor", "dry_run": True, "request_id": str(uuid.uuid4())}
    probes = {
        "send plans": (subjects.SUBMIT, b"", {"Nats-Expected-Stream": _NO_STREAM}),
        "ask the worker": (f"{subjects.API}.list", b'{"limit": 1}', None),
        "change experiments": (f"{subjects.API}.pause", json.dumps(harmless).encode(), None),
    }
    watching = "follow statuses"
    status = f"{subjects.STATUS}.*"
    try:
        for subject, data, headers in probes.values():
            await client.publish(subject, data, reply=client.new_inbox(), headers=headers)
        subscription = await client.subscribe(status)
        # The broker denies what it denies before it answers the second one; nats-py may send the first one too early.
        for _ in range(2):
            await client.flush(timeout=int(_ANSWER_SECONDS))
        with contextlib.suppress(bus.nats.errors.Error):
            await subscription.unsubscribe()
    except (bus.nats.errors.Error, OSError) as error:
        return findings.unknown("rights", f"they can't be tried: {error}")
    denied = [name for name, (subject, _, _) in probes.items() if link.denies(subject)]
    denied += [watching] if link.denies(status) else []
    allowed = [name for name in (*probes, watching) if name not in denied]
    if not denied:
        return findings.ok("rights", f"this user may {', '.join(allowed)}")
    may = f"this user may {', '.join(allowed) or 'nothing'}, but not {', '.join(denied)}"
    return (findings.warning if allowed else findings.failure)("rights", may, f"if you need that, {_OTHER_CREDENTIALS}")


async def _worker(link: connection.Connection) -> Finding:
    began = time.monotonic()
    try:
        await link.ask(f"{subjects.API}.list", b'{"limit": 1}', _ANSWER_SECONDS)
    except errors.WorkerUnavailable:
        return findings.failure("worker", "none answers", "start one: ems-worker run; or a whole platform: ems up")
    except errors.NoAnswer as late:
        if link.denies(f"{subjects.API}.list"):
            return findings.unknown("worker", "this user may not ask it")
        return findings.failure("worker", "no answer in time", str(late))
    except errors.EmsError as error:
        return findings.failure("worker", "it can't answer", str(error))
    return findings.ok("worker", f"answers in {(time.monotonic() - began) * 1000:.1f} ms")


async def _worker_version(link: connection.Connection) -> str | None:
    try:
        reply = await link.client.request("$SRV.INFO.ems", b"", timeout=_ANSWER_SECONDS)
        return str(json.loads(reply.data)["version"])
    except (bus.nats.errors.Error, OSError, TimeoutError, ValueError, KeyError, TypeError):
        return None


def clock(infos: Mapping[str, Mapping[str, Any] | None]) -> Finding:
    """How far our clock is from the broker's; asking took at most as long as the connection needs for an answer."""
    now = time.time()
    stamps = [info["ts"] for info in infos.values() if info is not None and "ts" in info]
    try:
        skew = min((datetime.fromisoformat(stamp[:19] + "+00:00").timestamp() - now for stamp in stamps), key=abs)
    except (ValueError, TypeError):
        return findings.unknown("clock", "the broker doesn't say what time it is")
    if abs(skew) <= _MAX_SKEW_SECONDS + 1:
        return findings.ok("clock", "agrees with the broker's")
    return findings.warning(
        "clock",
        f"this machine is {abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} the broker",
        "set the clock by NTP: times of runs and time limits are compared across machines",
    )
