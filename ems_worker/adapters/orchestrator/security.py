"""The channel to the orchestrator: plaintext on this machine, otherwise TLS, with a client certificate if configured.

If a token is configured, every call carries it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from ems_worker import errors
from ems_worker.settings import Channel, files, targets

_PEM = b"-----BEGIN"

# There is one retry policy, and it is ours. Fast keepalive would kill healthy connections, so every call has a
# deadline instead.
OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Otherwise a new channel to the same address shares the connection of the old one.
    ("grpc.use_local_subchannel_pool", 1),
)


def channel(configured: Channel, options: Sequence[tuple[str, int]]) -> grpc.aio.Channel:
    """A new channel, for which the configured files are read now.

    Raises errors.SettingsError for files that can't be used.
    """
    configured.check()
    target = configured.target
    interceptors = None if configured.token is None else _with_token(configured.token)
    options = (*options, *for_target(target))
    if not configured.encrypted:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    ca, cert, key = configured.ca, configured.cert, configured.key
    if key is not None:
        files.check_private(key, "is a secret")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=None if ca is None else _pem(ca, "the CA certificates for the orchestrator"),
        private_key=None if key is None else _pem(key, "the key for the orchestrator"),
        certificate_chain=None if cert is None else _pem(cert, "the certificate for the orchestrator"),
    )
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def for_target(target: str) -> tuple[tuple[str, int], ...]:
    """Channel options for this target: gRPC would send even loopback traffic to the proxy named by `http_proxy`."""
    return (("grpc.enable_http_proxy", 0),) if targets.is_local(target) else ()


def _pem(path: Path, description: str) -> bytes:
    content = files.read(path, description)
    if _PEM not in content:
        # gRPC would report nothing, and never connect.
        raise errors.SettingsError(f"{description} {path} is not in PEM")
    return content


def _with_token(path: Path) -> "list[grpc.aio.ClientInterceptor]":
    files.check_private(path, "is a secret")
    token = files.read(path, "the token for the orchestrator").strip()
    if not token or not token.isascii():
        raise errors.SettingsError(f"the token for the orchestrator {path} is empty, or is not ASCII")
    added = ("authorization", f"Bearer {token.decode()}")
    # gRPC's own call credentials are not sent in plaintext, not even on this machine.
    return [_UnaryCalls(added), _StreamedReplies(added)]  # type: ignore[list-item]  # a gap in the stubs


class _MetadataInterceptor:
    def __init__(self, added: tuple[str, str]) -> None:
        self._added = added

    def _extended(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        return grpc.aio.ClientCallDetails(
            details.method,
            details.timeout,
            grpc.aio.Metadata(*(details.metadata or ()), self._added),
            details.credentials,
            details.wait_for_ready,
        )


class _UnaryCalls(_MetadataInterceptor, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    async def intercept_unary_unary(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        return await continuation(self._extended(details), request)


class _StreamedReplies(_MetadataInterceptor, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # as above
    async def intercept_unary_stream(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        return await continuation(self._extended(details), request)
