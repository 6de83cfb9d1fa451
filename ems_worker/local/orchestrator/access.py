"""Who may call: whoever can open the socket in its owner's directory, or carries the token."""

import hmac
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from ems_worker import errors
from ems_worker.settings import files, private

# The shortest that any system allows a socket's path to be (macOS; Linux has four more).
LONGEST_SOCKET_PATH = 103


class Tokens(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Refuses every call, of health and reflection too, that doesn't carry the token: UNAUTHENTICATED."""

    def __init__(self, token: bytes) -> None:
        self._expected = b"Bearer " + token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        given = dict(handler_call_details.invocation_metadata).get("authorization", "")
        words = given if isinstance(given, bytes) else given.encode()
        if hmac.compare_digest(words, self._expected):
            return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(requests: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    # Of any kind of call: a stream is answered before a request is read.
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the call has not the token of this orchestrator")


def read_token(path: Path) -> bytes:
    """The token in a file that nobody else may read. Raises errors.SettingsError."""
    files.check_private(path, "is a secret")
    token = files.read(path, "the token").strip()
    if not token:
        raise errors.SettingsError(f"the token {path} is empty")
    return token


def check_socket(path: Path) -> None:
    """Raises errors.FileUnwritable for a socket that can't be, or in a directory that others could enter."""
    if len(str(path).encode()) > LONGEST_SOCKET_PATH:
        raise errors.FileUnwritable(f"a socket's path has at most {LONGEST_SOCKET_PATH} bytes, {path} has more")
    try:
        found = path.parent.stat()
    except OSError:
        private.directory(path.parent)
        return
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise errors.FileUnwritable(
            f"others may enter {path.parent}, and so start simulations by the socket in it: chmod 700 {path.parent}, "
            "or put the socket into a directory of its own"
        )
