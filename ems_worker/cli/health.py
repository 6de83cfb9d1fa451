"""`ems-worker health`: asks a running worker how it is, for a container's health check."""

import http.client
import json
from typing import Any

from ems_worker import errors
from ems_worker.cli import exits, shell

_TIMEOUT_SECONDS = 4.0
# Where a server that listens on every address can be asked.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nobody listens here


def ask(address: tuple[str, int] | None) -> exits.Exit:
    """Says what is wrong with the worker that serves at `address`; FAILED where anything is.

    Raises SettingsError where the address can't be known.
    """
    if address is None or address[1] == 0:
        raise errors.SettingsError(
            "http: the worker can't be asked, as its port is off or of its own choice: set EMS_HTTP"
        )
    host, port = _LOOPBACK.get(address[0], address[0]), address[1]
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as failed:
        shell.say(f"no worker answers at {host}:{port}: {failed}")
        return exits.Exit.FAILED
    finally:
        connection.close()
    if status == http.client.OK:
        return exits.Exit.OK
    shell.say(f"the worker at {host}:{port} is not healthy: {_troubles(body) or status}")
    return exits.Exit.FAILED


def _troubles(body: bytes) -> str:
    """The troubles that the answer names; empty where something else than a worker answered."""
    try:
        document: Any = json.loads(body)
        return "; ".join(f"{part}: {words}" for part, words in document["troubles"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
