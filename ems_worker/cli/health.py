"""`ems-worker health`: checks a running worker over HTTP, for a container's health check."""

import http.client
import json
from typing import Any

from ems_worker import errors
from ems_worker.cli import exits, shell

_TIMEOUT_SECONDS = 4.0
# The address to connect to for a server that listens on every address.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def ask(address: tuple[str, int] | None, *, json: bool = False) -> exits.Exit:
    """Returns OK if the worker at `address` is healthy; otherwise prints why not and returns FAILED.

    With `json`, prints either as a document. Raises SettingsError if the settings don't determine the address.
    """
    if address is None or address[1] == 0:
        raise errors.SettingsError(
            "http: the worker's HTTP port is disabled or chosen at its start; set EMS_HTTP to a fixed port"
        )
    problem = _problem(_LOOPBACK.get(address[0], address[0]), address[1])
    if json:
        shell.out_json({"healthy": problem is None, "reason": problem})
    elif problem is not None:
        shell.say(problem)
    return exits.Exit.OK if problem is None else exits.Exit.FAILED


def _problem(host: str, port: int) -> str | None:
    """Why the worker at this address isn't healthy; None if it is."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as failed:
        return f"no worker answers at {host}:{port}: {failed}"
    finally:
        connection.close()
    if status == http.client.OK:
        return None
    return f"the worker at {host}:{port} is not healthy: {_problems(body) or status}"


def _problems(body: bytes) -> str:
    """The problems in the response; empty if it is not a worker's."""
    try:
        document: Any = json.loads(body)
        return "; ".join(f"{part}: {problem}" for part, problem in document["troubles"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
