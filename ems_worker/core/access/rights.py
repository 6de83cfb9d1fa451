"""The subjects that each role may publish and subscribe to, defined only here.

The configuration in deploy/nats, the broker of `ems up --secured` and the table in docs/security.md are generated from
this module.

A broker doesn't check the subjects to which its own answers go: a client that may send JetStream a request can have the
answer sent to any subject of the account. Only the worker and the administrator may therefore create consumers or use
DIRECT.GET and MSG.NEXT, which send messages exactly as they are stored, and an empty message if there is none. MSG.GET
is safe for the others: it answers in JetStream's own JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ems_worker.core.documents import subjects

# The placeholder for the user's name in the subjects of a role.
_NAME = "{name}"

QUERIES = ("validate", "list", "get", "jobs", "points", "results", "config", "plan")
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
# Reads the last status and decision inside JetStream's own JSON. DIRECT.GET isn't allowed: if there is no message, it
# answers with an empty body, and an empty body is a valid request to delete or purge a stream.
_STORED = (f"{_API}.STREAM.MSG.GET.{subjects.STATUS_STREAM}",)
_QUERIES = tuple(f"{subjects.API}.{verb}" for verb in QUERIES)
_ENDS = tuple(f"{subjects.RUN_PREFIX}{kind}{end}" for end in ("", ".>") for kind in ("started", "completed", "failed"))
_METRICS = (subjects.RUN_METRICS, f"{subjects.RUN_METRICS}.>")
# The roles whose requests the worker answers, and which may subscribe to what it publishes.
_ASKING = ("publisher", "analysis", "dashboard", "operator")


def inbox_prefix(user: str) -> str:
    """The prefix of the inboxes to which only this user may subscribe."""
    return f"_INBOX_{user}"


@dataclass(frozen=True, slots=True)
class Role:
    """The tasks of a kind of user, and the subjects needed for them; everything else is denied."""

    name: str
    does: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...] = ()

    def may_publish(self, user: str) -> tuple[str, ...]:
        """The subjects that a user of this name may publish to."""
        return tuple(subject.replace(_NAME, user) for subject in self.publish)

    def may_subscribe(self, user: str) -> tuple[str, ...]:
        """The subjects that a user of this name may subscribe to; the last one is the user's own inboxes."""
        return (*self.subscribe, f"{inbox_prefix(user)}.>")


ROLES = (
    Role(
        "publisher",
        "submits plans under its own name and follows their experiments",
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
        "reads plans and run events, publishes documents, answers requests",
        (
            *_DOCUMENTS,
            subjects.DEAD_PLANS,
            subjects.DEAD_EVENTS,
            f"{_API}.STREAM.NAMES",
            *(f"{_API}.STREAM.INFO.{stream}" for stream in STREAMS),
            *(
                f"{_API}.STREAM.MSG.GET.{stream}"
                for stream in (subjects.STATUS_STREAM, subjects.RESULTS_STREAM, subjects.PLAN_OBJECTS_STREAM)
            ),
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
        "publishes when runs start and how they end",
        (*_ENDS, *_METRICS, f"{_API}.STREAM.NAMES"),
    ),
    Role(
        "analysis",
        "reads results, and adds metrics that are computed after a run",
        (*_METRICS, *_STORED, *_QUERIES),
        _DOCUMENTS,
    ),
    Role(
        "dashboard",
        "shows experiments, without changing them",
        (*_STORED, *_QUERIES),
        _DOCUMENTS,
    ),
    Role(
        "operator",
        "everything that `ems` and `ems-publish` do: plans under any name, changes, dead letters",
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
        "creates, changes and deletes streams and consumers: `ems-worker provision`, `nats stream`",
        (f"{subjects.JETSTREAM}.>",),
        (f"{subjects.JETSTREAM}.EVENT.>",),
    ),
)


# The value of EMS_REPLY_PREFIXES for these users.
REPLY_PREFIXES = tuple(f"{inbox_prefix(user)}." for user in _ASKING)


def authorization(keys: Mapping[str, str]) -> str:
    """The nats-server configuration of one user per role, named after it, with the public nkeys in `keys`."""
    users = "".join(f"{{ nkey: {keys[role.name]}, permissions: {_permissions(role)} }}\n" for role in ROLES)
    return f"authorization {{ users: [\n{users}] }}\n"


def variables() -> str:
    """The permissions as variables of a nats-server configuration: PUBLISHER_RIGHTS and so on."""
    return "".join(f"\n# {role.does}\n{role.name.upper()}_RIGHTS: {_permissions(role)}\n" for role in ROLES)


def _permissions(role: Role) -> str:
    publish, subscribe = _listed(role.may_publish(role.name)), _listed(role.may_subscribe(role.name))
    return f"{{\n  publish: {{ allow: [\n{publish}  ] }}\n  subscribe: {{ allow: [\n{subscribe}  ] }}\n}}"


def _listed(subjects: Sequence[str]) -> str:
    return "".join(f"    {json.dumps(subject)}\n" for subject in subjects)
