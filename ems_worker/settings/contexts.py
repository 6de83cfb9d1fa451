"""Reads the contexts of the `nats` command (ADR-21): named sets of connection settings, one JSON file each."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ems_worker import errors
from ems_worker.settings import files

_NAME = re.compile(r"[^/\\]+")
# Keys of a context and our settings. Keys in neither this table nor the next (description, colour) don't affect a
# connection.
_KEYS = {
    "url": "server",
    "user": "nats_user",
    "password": "nats_password",
    "token": "nats_token",
    "creds": "nats_creds",
    "nkey": "nats_nkey",
    "cert": "nats_cert",
    "key": "nats_key",
    "ca": "nats_ca",
    "tls_first": "nats_tls_first",
    "inbox_prefix": "nats_inbox_prefix",
}
# Ignoring one of these would connect to something else than intended.
_UNSUPPORTED = (
    "nsc",
    "user_jwt",
    "user_seed",
    "jetstream_domain",
    "jetstream_api_prefix",
    "socks_proxy",
    "windows_cert_store",
)
_SECRETS = ("password", "token")


def selected(environ: Mapping[str, str]) -> str | None:
    """The context that `nats context select` chose; None if none is selected."""
    try:
        name = (_directory(environ) / "context.txt").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return name or None


def read(name: str, environ: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """The settings of a context, under our names. `name` may be the path of its file, as with the `nats` command.

    Raises errors.SettingsError for a context that doesn't exist or can't be used.
    """
    directory = _directory(environ) / "context"
    path = directory / f"{name}.json"
    if name.endswith(".json") and Path(name).is_file():
        path = Path(name)
    elif not _NAME.fullmatch(name) or not path.is_file():
        known = ", ".join(sorted(file.stem for file in directory.glob("*.json"))) or "none"
        raise errors.SettingsError(f"there is no NATS context {name!r} in {directory}; available: {known}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as failed:
        raise errors.SettingsError(f"the NATS context {path} can't be read: {failed}") from failed
    if not isinstance(content, dict):
        raise errors.SettingsError(f"the NATS context {path} is not a JSON object")
    if any(content.get(key) for key in _SECRETS):
        files.check_private(path, "holds a secret")
    if unsupported := [key for key in _UNSUPPORTED if content.get(key)]:
        raise errors.SettingsError(f"the NATS context {path} has {', '.join(unsupported)}, which is not supported here")
    for key, setting in _KEYS.items():
        if content.get(key):
            yield setting, _expanded(key, content[key], environ)


def _expanded(key: str, value: object, environ: Mapping[str, str]) -> object:
    """The value, with a leading `~/` in a path expanded as the `nats` command does."""
    if key in ("creds", "nkey", "cert", "key", "ca") and isinstance(value, str) and value.startswith("~/"):
        return str(_home(environ) / value[2:])
    return value


def _directory(environ: Mapping[str, str]) -> Path:
    root = environ.get("XDG_CONFIG_HOME")
    return (Path(root) if root else _home(environ) / ".config") / "nats"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))
