"""Which role may publish and subscribe to which subjects: the one place that says so.

The configuration in deploy/nats, the broker of `ems up --secured` and the table in docs/security.md are made from it.

A broker doesn't check the subjects that its own answers go to: who may ask JetStream for something may have the answer
sent to any subject of the account. So only the worker and the administrator may make a consumer, or have messages sent
as they are stored, or nothing sent in place of one that is missing (DIRECT.GET, MSG.NEXT; MSG.GET answers in JSON of
its own).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ems_worker.core.documents import subjects

# What stands for the user's name in the subjects of a role.
_NAME = "{name}"

QUERIES = ("validate", "list", "get", "jobs", "points", "results", "config")
STREAMS = (
    subjects.PLANS_STREAM,
    subjects.EVENTS_STREAM,
    subjects.STATUS_STREAM,
    subjects.RESULTS_STREAM,
    subjects.DEAD_LETTER_STREAM,
    subjects.PLAN_OBJECTS_STREAM,
)
CONSUMERS = ((subjects.PLANS_STREAM, "ems-worker-plans"), (subjects.EVENTS_STREAM, "ems-worker-events"))
DOCUMENTS = ("decision", "status", "result", "point", "settled", "change")

_API = subjects.JETSTREAM_API
_OBJECTS = (f"$O.{subjects.PLAN_BUCKET}.C.*", f"$O.{subjects.PLAN_BUCKET}.M.*")
_DOCUMENTS = tuple(f"{subjects.EXPERIMENT}.{kind}.*" for kind in DOCUMENTS)
_DISCOVERY = tuple(f"$SRV.{verb}{end}" for end in ("", ".>") for verb in ("PING", "INFO", "STATS"))
# The last status and decision, inside JetStream's own JSON. Not by DIRECT.GET: what that answers where there is nothing
# has an empty body, which is all that deleting or purging a stream asks for.
_STORED = (f"{_API}.STREAM.MSG.GET.{subjects.STATUS_STREAM}",)
_QUERIES = tuple(f"{subjects.API}.{verb}" for verb in QUERIES)
_ENDS = tuple(
    f"{subject}{end}"
    for end in ("", ".>")
    for subject in (subjects.RUN_STARTED, subjects.RUN_COMPLETED, subjects.RUN_FAILED)
)
_METRICS = (subjects.RUN_METRICS, f"{subjects.RUN_METRICS}.>")
# Whose questions the worker answers, and who may follow what it publishes.
_ASKING = ("publisher", "analysis", "dashboard", "operator")


def inbox_prefix(user: str) -> str:
    """The prefix of the inboxes that are this user's alone."""
    return f"_INBOX_{user}"


@dataclass(frozen=True, slots=True)
class Role:
    """What users of one kind do, and the subjects that they need for it; everything else is denied."""

    name: str
    does: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...] = ()

    def may_publish(self, user: str) -> tuple[str, ...]:
        """The subjects that a user of this name may publish to."""
        return tuple(subject.replace(_NAME, user) for subject in self.publish)

    def may_subscribe(self, user: str) -> tuple[str, ...]:
        """The subjects that a user of this name may subscribe to; its own inboxes come last."""
        return (*self.subscribe, f"{inbox_prefix(user)}.>")


ROLES = (
    Role(
        "publisher",
        "submits plans under its own name and follows what becomes of them",
        (
            subjects.SUBMIT,
            f"{subjects.SUBMIT}.{_NAME}",
            *_OBJECTS,
            f"{_API}.STREAM.INFO.{subjects.PLANS_STREAM}",
            *_STORED,
            *_QUERIES,
        ),
        _DOCUMENTS,
    ),
    Role(
        "worker",
        "reads plans and run events, publishes documents, answers questions",
        (
            *_DOCUMENTS,
            subjects.DEAD_PLANS,
            subjects.DEAD_EVENTS,
            f"{_API}.STREAM.NAMES",
            *(f"{_API}.STREAM.INFO.{stream}" for stream in STREAMS),
            *(f"{_API}.STREAM.MSG.GET.{stream}" for stream in (subjects.STATUS_STREAM, subjects.PLAN_OBJECTS_STREAM)),
            f"{_API}.DIRECT.GET.{subjects.PLAN_OBJECTS_STREAM}",
            *(
                f"{_API}.CONSUMER.{verb}.{stream}.{consumer}"
                for stream, consumer in CONSUMERS
                for verb in ("INFO", "CREATE", "DELETE", "MSG.NEXT")
            ),
            *(f"{subjects.JETSTREAM_ACK}.{stream}.{consumer}.>" for stream, consumer in CONSUMERS),
            *(f"{inbox_prefix(user)}.>" for user in _ASKING),
        ),
        (f"{subjects.API}.*", *_DISCOVERY),
    ),
    Role(
        "orchestrator",
        "says how runs go and end",
        (*_ENDS, *_METRICS, f"{_API}.STREAM.NAMES"),
    ),
    Role(
        "analysis",
        "reads results, adds metrics that are computed after a run",
        (*_METRICS, *_STORED, *_QUERIES),
        _DOCUMENTS,
    ),
    Role(
        "dashboard",
        "shows experiments and changes nothing",
        (*_STORED, *_QUERIES),
        _DOCUMENTS,
    ),
    Role(
        "operator",
        "all that `ems` and `ems-publish` do: plans under any name, changes, dead letters",
        (
            subjects.SUBMIT,
            f"{subjects.SUBMIT}.*",
            *_OBJECTS,
            *_ENDS,
            *_METRICS,
            f"{subjects.API}.*",
            *_DISCOVERY,
            *_STORED,
            f"{_API}.STREAM.INFO.{subjects.PLANS_STREAM}",
            *(
                f"{_API}.STREAM.MSG.GET.{stream}"
                for stream in (subjects.PLANS_STREAM, subjects.EVENTS_STREAM, subjects.DEAD_LETTER_STREAM)
            ),
            f"{_API}.STREAM.MSG.DELETE.{subjects.DEAD_LETTER_STREAM}",
        ),
        _DOCUMENTS,
    ),
    Role(
        "admin",
        "makes, changes and deletes streams and consumers: `ems-worker provision`, `nats stream`",
        (f"{subjects.JETSTREAM}.>",),
        (f"{subjects.JETSTREAM}.EVENT.>",),
    ),
)


# What EMS_REPLY_PREFIXES has to be for these users.
REPLY_PREFIXES = tuple(f"{inbox_prefix(user)}." for user in _ASKING)


def authorization(keys: Mapping[str, str]) -> str:
    """A nats-server's configuration that lets in one user a role, with its name, by the public nkeys of `keys`."""
    users = "".join(f"{{ nkey: {keys[one.name]}, permissions: {_permissions(one)} }}\n" for one in ROLES)
    return f"authorization {{ users: [\n{users}] }}\n"


def variables() -> str:
    """The same as variables for a configuration: PUBLISHER_RIGHTS and so on."""
    return "".join(f"\n# {one.does}\n{one.name.upper()}_RIGHTS: {_permissions(one)}\n" for one in ROLES)


def _permissions(one: Role) -> str:
    publish, subscribe = _listed(one.may_publish(one.name)), _listed(one.may_subscribe(one.name))
    return f"{{\n  publish: {{ allow: [\n{publish}  ] }}\n  subscribe: {{ allow: [\n{subscribe}  ] }}\n}}"


def _listed(subjects: Sequence[str]) -> str:
    return "".join(f"    {json.dumps(subject)}\n" for subject in subjects)
