"""Credentials for the broker of a platform: one user with a password, or one user per role with limited rights."""

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
    """The users of a broker, and how each part of the platform connects as one of them.

    `configuration` is the part of the broker's configuration that defines the users. `platform` is announced to the
    other programs of this user. `context` is a context file for programs of others, `orchestrator` that of the
    orchestrator. `worker` is the environment of the worker. `admin` is the user that creates the streams before the
    worker starts; if it is None, the worker creates them.
    """

    configuration: str
    platform: running.Platform
    context: Path
    orchestrator: Path
    worker: Mapping[str, str]
    admin: Access | None = None


def password(directory: Path, port: int, target: str, token: str | None) -> Entry:
    """One user with all rights and a new password."""
    new_password = secrets.token_urlsafe(32)
    platform = running.Platform(
        path=running.path_for(port, os.environ),
        url=f"nats://{ports.LOOPBACK}:{port}",
        user=_USER,
        password=new_password,
        orchestrator=target,
        orchestrator_token=token,
        data_dir=str(directory.parent),
        pid=os.getpid(),
    )
    context = _context(directory, platform)
    users = f"{{ user: {json.dumps(_USER)}, password: {json.dumps(new_password)} }}"
    return Entry(
        configuration=f"authorization {{ users: [ {users} ] }}\n",
        platform=platform,
        context=context,
        orchestrator=context,
        worker={"EMS_CONTEXT": str(context)},
    )


def roles(directory: Path, port: int, target: str, token: str | None) -> Entry:
    """One user per role, with nkeys over TLS: each part has the rights of its role, this user those of the operator."""
    site = keys.make(directory / "keys", f"tls://{ports.LOOPBACK}:{port}", ("localhost",))
    platform = running.Platform(
        path=running.path_for(port, os.environ),
        url=site.url,
        user=None,
        password=None,
        orchestrator=target,
        orchestrator_token=token,
        nkey=str(site.seed("operator")),
        ca=str(site.ca("operator")),
        inbox_prefix=rights.inbox_prefix("operator"),
        data_dir=str(directory.parent),
        pid=os.getpid(),
    )
    worker = {
        "EMS_CONTEXT": str(site.context("worker")),
        "EMS_CREATE_STREAMS": "false",
        "EMS_REPLY_PREFIXES": ",".join(rights.REPLY_PREFIXES),
    }
    return Entry(
        configuration=site.configuration(),
        platform=platform,
        context=_context(directory, platform),
        orchestrator=site.context("orchestrator"),
        worker=worker,
        admin=site.access("admin"),
    )


def _context(directory: Path, platform: running.Platform) -> Path:
    """Writes a permanent context file: the announced file may be deleted when the user logs out."""
    path = private.directory(directory) / "context.json"
    os.close(private.write(path, platform.context()))
    return path
