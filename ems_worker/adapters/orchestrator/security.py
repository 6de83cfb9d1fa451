"""The channel to the orchestrator: in plaintext on this machine, else by TLS, if asked with our own certificate."""

from collections.abc import Sequence
from pathlib import Path

import grpc

from ems_worker import errors
from ems_worker.settings import Channel, files

_PEM = b"-----BEGIN"


def channel(way: Channel, options: Sequence[tuple[str, int]]) -> grpc.aio.Channel:
    """A new channel; its files are read now. Raises errors.SettingsError for what can't be used."""
    way.check()
    if not way.encrypted:
        return grpc.aio.insecure_channel(way.target, options=options)
    key = None
    if way.key is not None:
        files.check_private(way.key, "is a secret")
        key = _pem(way.key, "the key for the orchestrator")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=None if way.ca is None else _pem(way.ca, "the CA certificates for the orchestrator"),
        private_key=key,
        certificate_chain=None if way.cert is None else _pem(way.cert, "the certificate for the orchestrator"),
    )
    return grpc.aio.secure_channel(way.target, credentials, options=options)


def _pem(path: Path, what: str) -> bytes:
    content = files.read(path, what)
    if _PEM not in content:
        # gRPC itself would say nothing, and connect never.
        raise errors.SettingsError(f"{what} {path} is not in PEM")
    return content
