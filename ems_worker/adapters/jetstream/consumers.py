"""The durable pull consumers: what each has to be, and what is wrong with one that is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams

PLANS = "ems-worker-plans"
EVENTS = "ems-worker-events"

ACK_WAIT_SECONDS = 30
_ACK_WAIT_NS = ACK_WAIT_SECONDS * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Spec:
    """A consumer. `max_ack_pending` bounds what is fetched and not yet acknowledged; no filters: the whole stream."""

    name: str
    max_ack_pending: int
    filters: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Unlimited deliveries: a consumer with a limit strands a message silently; dead letters are ours to write."""
        return {
            "durable_name": self.name,
            "name": self.name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_wait": _ACK_WAIT_NS,
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
            **({"filter_subjects": list(self.filters)} if self.filters else {}),
        }


PLANS_SPEC = Spec(PLANS, max_ack_pending=256)
EVENTS_SPEC = Spec(EVENTS, max_ack_pending=10_000, filters=streams.EVENT_SUBJECTS)


def differences(spec: Spec, config: Mapping[str, Any]) -> list[str]:
    """How an existing consumer contradicts what the worker relies on, a line each; empty: it doesn't."""
    lines = [
        f"{key} is {config.get(key)}, has to be {spec.config[key]}"
        for key in ("ack_policy", "replay_policy", "max_deliver")
        if config.get(key) != spec.config[key]
    ]
    # By a sequence: as a restore leaves it.
    if config.get("deliver_policy") not in ("all", "by_start_sequence"):
        lines.append(f"deliver_policy is {config.get('deliver_policy')}, has to be all")
    if config.get("deliver_subject"):
        lines.append("it is a push consumer, has to be a pull consumer")
    if config.get("headers_only"):
        lines.append("headers_only is set: the messages would have no content")
    if config.get("backoff"):
        lines.append("backoff is set, which takes the place of ack_wait")
    found = set(config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else []))
    if found != set(spec.filters):
        lines.append(
            f"its filter is {', '.join(sorted(found)) or 'empty'}, has to be {', '.join(spec.filters) or 'empty'}"
        )
    if config.get("ack_wait", 0) < _ACK_WAIT_NS:
        lines.append(f"ack_wait is under {ACK_WAIT_SECONDS} s")
    # 0 and -1 stand for no limit of its own.
    if 0 < config.get("max_ack_pending", 0) < spec.max_ack_pending:
        lines.append(f"max_ack_pending is {config['max_ack_pending']}, has to be {spec.max_ack_pending} or more")
    return lines


async def ensure(link: connection.Connection, stream: str, spec: Spec) -> None:
    """Makes the consumer where it is missing; raises BrokerMisconfigured where the one that is there differs."""
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{spec.name}")
    if info is None:
        body = {"stream_name": stream, "config": spec.config, "action": "create"}
        info = await api.call(link, f"CONSUMER.CREATE.{stream}.{spec.name}", body)
    if lines := differences(spec, info["config"]):
        raise errors.BrokerMisconfigured(
            f"consumer {spec.name} of stream {stream}: {'; '.join(lines)}. Remedy: delete it "
            f"(nats consumer rm {stream} {spec.name}) and start the worker, "
            "which creates it and reads the stream from its start again; what was decided before stays so"
        )


async def rewind(link: connection.Connection, stream: str, spec: Spec, after_seq: int) -> None:
    """Makes the consumer anew, so that it delivers what comes after a sequence once more."""
    if await exists(link, stream, spec.name):
        await api.call(link, f"CONSUMER.DELETE.{stream}.{spec.name}")
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after_seq + 1}
    body = {"stream_name": stream, "config": {**spec.config, **start}, "action": "create"}
    await api.call(link, f"CONSUMER.CREATE.{stream}.{spec.name}", body)


async def position(link: connection.Connection, stream: str, name: str) -> int:
    """The sequence up to which everything is acknowledged."""
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{name}")
    return 0 if info is None else int(info["ack_floor"]["stream_seq"])


async def exists(link: connection.Connection, stream: str, name: str) -> bool:
    """Whether the consumer is there."""
    return await api.find(link, f"CONSUMER.INFO.{stream}.{name}") is not None
