"""The channel to the orchestrator: in plaintext on this machine, else by TLS, if asked with our own certificate.

Where it asks for a token, every call carries it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from ems_worker import errors
from ems_worker.settings import Channel, files, targets

_PEM = b"-----BEGIN"


def channel(way: Channel, options: Sequence[tuple[str, int]]) -> grpc.aio.Channel:
    """A new channel; its files are read now. Raises errors.SettingsError for what can't be used."""
    way.check()
    interceptors = None if way.token is None else _with_token(way.token)
    options = (*options, *for_target(way.target))
    if not way.encrypted:
        return grpc.aio.insecure_channel(way.target, options=options, interceptors=interceptors)
    key = None
    if way.key is not None:
        files.check_private(way.key, "is a secret")
        key = _pem(way.key, "the key for the orchestrator")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=None if way.ca is None else _pem(way.ca, "the CA certificates for the orchestrator"),
        private_key=key,
        certificate_chain=None if way.cert is None else _pem(way.cert, "the certificate for the orchestrator"),
    )
    return grpc.aio.secure_channel(way.target, credentials, options=options, interceptors=interceptors)


def for_target(target: str) -> tuple[tuple[str, int], ...]:
    """Options of a channel to this target: gRPC would send what is for this machine to the proxy of `http_proxy`."""
    return (("grpc.enable_http_proxy", 0),) if targets.is_local(target) else ()


def _pem(path: Path, what: str) -> bytes:
    content = files.read(path, what)
    if _PEM not in content:
        # gRPC itself would say nothing, and connect never.
        raise errors.SettingsError(f"{what} {path} is not in PEM")
    return content


def _with_token(path: Path) -> "list[grpc.aio.ClientInterceptor]":
    files.check_private(path, "is a secret")
    token = files.read(path, "the token for the orchestrator").strip()
    if not token or not token.isascii():
        raise errors.SettingsError(f"the token for the orchestrator {path} is empty, or is not ASCII")
    added = ("authorization", f"Bearer {token.decode()}")
    # Call credentials, gRPC's own way, are not sent over a channel in plaintext, not even on this machine.
    return [_UnaryCalls(added), _StreamedReplies(added)]  # type: ignore[list-item]  # a gap in its stubs


class _Adding:
    def __init__(self, added: tuple[str, str]) -> None:
        self._added = added

    def _more(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        return grpc.aio.ClientCallDetails(
            details.method,
            details.timeout,
            grpc.aio.Metadata(*(details.metadata or ()), self._added),
            details.credentials,
            details.wait_for_ready,
        )


class _UnaryCalls(_Adding, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    async def intercept_unary_unary(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        return await continuation(self._more(details), request)


class _StreamedReplies(_Adding, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # as above
    async def intercept_unary_stream(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        return await continuation(self._more(details), request)
