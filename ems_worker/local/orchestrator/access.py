"""Access control: callers need the socket in a private directory, or the token."""

import hmac
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from ems_worker import errors
from ems_worker.settings import files, private

# In bytes. This is the limit of macOS; that of Linux is 107.
MAX_SOCKET_PATH = 103


class Tokens(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Answers UNAUTHENTICATED to every call without the token, including those of health and reflection."""

    def __init__(self, token: bytes) -> None:
        self._expected = b"Bearer " + token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        authorization = dict(handler_call_details.invocation_metadata).get("authorization", "")
        given = authorization if isinstance(authorization, bytes) else authorization.encode()
        if hmac.compare_digest(given, self._expected):
            return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(requests: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    # Suits every kind of call: the answer doesn't wait for a request.
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the call lacks the token of this orchestrator")


def read_token(path: Path) -> bytes:
    """The token in a file that only this user can read. Raises errors.SettingsError."""
    files.check_private(path, "is a secret")
    token = files.read(path, "the token").strip()
    if not token:
        raise errors.SettingsError(f"the token {path} is empty")
    return token


def check_socket(path: Path) -> None:
    """Raises errors.FileUnwritable if the path is too long, or the directory of the socket is open to others."""
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        raise errors.FileUnwritable(f"the path of a socket has at most {MAX_SOCKET_PATH} bytes; {path} is longer")
    try:
        status = path.parent.stat()
    except OSError:
        private.directory(path.parent)
        return
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise errors.FileUnwritable(
            f"others may enter {path.parent} and could start simulations through the socket in it: "
            f"chmod 700 {path.parent}, or use a directory that holds nothing else"
        )
