"""The types of settings: how text from the environment or a flag becomes a value, and which values are refused."""

import ipaddress
import re
import socket
import urllib.parse
from pathlib import Path
from typing import Annotated

from annotated_types import Unit
from pydantic import AfterValidator, BeforeValidator

_SCHEMES = ("nats", "tls", "ws", "wss")
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PREFIX_FORM = re.compile(r"(?:[^\s.*>]+\.)+")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# The requester chooses the subject of its reply. A reply on one of these would be read as an event or a request.
_NOT_FOR_REPLIES = ("ems.", "sim.", "$")


def host_and_port(address: str) -> tuple[str, int]:
    """Splits `host:port` or `[IPv6 address]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets, like [::1]:8080")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("should look like 127.0.0.1:8080")
    return host, int(port)


def _split(value: object) -> object:
    """Splits comma-separated text: environment variables and flags have no other form for lists."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _no_boolean(value: object) -> object:
    # pydantic would take `true` for the number 1.
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def _empty_is_none(value: object) -> object:
    """An empty environment variable stands for None."""
    return None if value == "" else value


def _not_empty(value: object) -> object:
    # Path("") is the working directory, which is never the intention of an empty variable.
    if value == "":
        raise ValueError("should not be empty")
    return value


def _at_least_one(servers: tuple[str, ...]) -> tuple[str, ...]:
    if not servers:
        raise ValueError("should name a server, like nats://host:4222")
    return servers


def _worker_name(name: str) -> str:
    if not _NAME_FORM.fullmatch(name):
        raise ValueError("should be 1 to 64 letters, digits, '.', '-' and '_', starting with a letter or digit")
    return name


def _server_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url if "://" in url else f"nats://{url}")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"the scheme should be one of {', '.join(_SCHEMES)}")
    try:
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("should look like nats://host:4222")
    return url


def _reply_prefix(prefix: str) -> str:
    if not _PREFIX_FORM.fullmatch(prefix):
        raise ValueError("should be subject tokens without wildcards that end with a dot, like _INBOX.")
    if prefix.startswith(_NOT_FOR_REPLIES):
        raise ValueError(f"should not start with {' or '.join(_NOT_FOR_REPLIES)}: replies could be read as events")
    return prefix


def seconds(duration: str) -> float:
    """The seconds of a duration such as 90s, 15m, 12h, 30d or 2w. Raises ValueError."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError("should be a number and a unit, such as 90s, 15m, 12h, 30d or 2w")
    return float(match[1]) * _UNITS[match[2]]


def _duration(text: str) -> str:
    if seconds(text) < _UNITS["m"]:
        raise ValueError("should be at least 1m")
    return text


def _address(text: str) -> str:
    if text:
        host_and_port(text)
    return text


def host_name() -> str:
    """The name of this host in the form of a worker id: stable across restarts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64].lstrip("_.-") or "worker"


CommaSeparated = BeforeValidator(_split)
Optional = BeforeValidator(_empty_is_none)
Number = BeforeValidator(_no_boolean)
Seconds = Annotated[float, Number, Unit("seconds")]
Url = Annotated[str, AfterValidator(_server_url)]
ReplyPrefix = Annotated[str, AfterValidator(_reply_prefix)]
Directory = Annotated[Path, BeforeValidator(_not_empty)]
OptionalDirectory = Annotated[Path | None, Optional]
OptionalFile = Annotated[Path | None, Optional]
WorkerName = Annotated[str, AfterValidator(_worker_name)]
Servers = Annotated[tuple[Url, ...], CommaSeparated, AfterValidator(_at_least_one)]
Duration = Annotated[str, AfterValidator(_duration)]
ListenAddress = Annotated[str, AfterValidator(_address)]
