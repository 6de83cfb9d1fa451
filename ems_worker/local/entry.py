"""Who is let into the broker of a platform: one user with a password, or one user a role with rights of its own."""

import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from ems_worker.core.access import rights
from ems_worker.local import keys, ports
from ems_worker.settings import Access, private, running

_USER = "ems"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """`configuration` is the broker's. `platform` is what the user's programs find.

    The contexts are files that the platform's own parts and other programs connect by; `worker` has the worker's
    settings. `admin` is who has to make the streams before the worker starts; None: the worker does.
    """

    configuration: str
    platform: running.Platform
    context: Path
    orchestrator: Path
    worker: Mapping[str, str]
    admin: Access | None = None


def password(directory: Path, port: int, target: str, token: str | None) -> Entry:
    """One user who may do everything, with a new password."""
    word = secrets.token_urlsafe(32)
    platform = running.Platform(
        running.path_for(port, os.environ), f"nats://{ports.LOOPBACK}:{port}", _USER, word, target, token
    )
    context = _context(directory, platform)
    users = f"{{ user: {json.dumps(_USER)}, password: {json.dumps(word)} }}"
    return Entry(f"authorization {{ users: [ {users} ] }}\n", platform, context, context, {"EMS_CONTEXT": str(context)})


def roles(directory: Path, port: int, target: str, token: str | None) -> Entry:
    """Each part has the rights of its role and the platform's user those of the operator, over TLS, by nkeys."""
    made = keys.make(directory / "keys", f"tls://{ports.LOOPBACK}:{port}", ("localhost",))
    platform = running.Platform(
        running.path_for(port, os.environ),
        made.url,
        None,
        None,
        target,
        token,
        nkey=str(made.seed("operator")),
        ca=str(made.ca("operator")),
        inbox_prefix=rights.inbox_prefix("operator"),
    )
    worker = {
        "EMS_CONTEXT": str(made.context("worker")),
        "EMS_CREATE_STREAMS": "false",
        "EMS_REPLY_PREFIXES": ",".join(rights.REPLY_PREFIXES),
    }
    return Entry(
        made.configuration(),
        platform,
        _context(directory, platform),
        made.context("orchestrator"),
        worker,
        made.access("admin"),
    )


def _context(directory: Path, platform: running.Platform) -> Path:
    """A file of their own for the parts: what was announced may be gone once its user has logged out."""
    path = private.directory(directory) / "context.json"
    os.close(private.write(path, platform.context()))
    return path
