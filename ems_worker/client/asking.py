"""Requests to the worker's service, and pages of its replies."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ems_worker import errors
from ems_worker.client import connection
from ems_worker.core import ids
from ems_worker.core.documents import subjects

Document = dict[str, Any]

# Documents per page: the worker's maximum. A power of four, so that repeated division by four ends at 1.
_PAGE = 64


def check_id(experiment_id: str) -> str:
    """The id; errors.NotFound if it can't be one: any other text could be several subject tokens, or a wildcard."""
    if not ids.EXPERIMENT_ID.fullmatch(experiment_id):
        raise errors.NotFound(f"no experiment {experiment_id!r}: an id has letters, digits, '-' and '_' only")
    return experiment_id


class Asker:
    """Sends requests over a connection. `request_timeout` is in seconds."""

    def __init__(self, link: connection.Connection, request_timeout: float) -> None:
        self._connection = link
        self._request_timeout = request_timeout

    async def _ask(self, endpoint: str, **request: object) -> Document:
        """The reply to a request without the keys that are None."""
        try:
            return await self._send(endpoint, {name: value for name, value in request.items() if value is not None})
        except connection.ReplyTooLarge as large:
            if request.get("limit", 1) == 1:  # there is no smaller request
                raise self._connection.too_large("the worker's answer") from large
            raise

    async def _send(self, endpoint: str, request: Mapping[str, object], timeout: float | None = None) -> Document:
        body = json.dumps(request).encode()
        return await self._connection.ask(f"{subjects.API}.{endpoint}", body, timeout or self._request_timeout)

    async def _page(self, endpoint: str, **request: object) -> Document:
        """Requests a page, and smaller pages until the reply fits into a message."""
        limit = _PAGE
        while True:
            try:
                return await self._ask(endpoint, limit=limit, **request)
            except connection.ReplyTooLarge:
                limit = max(1, limit // 4)

    async def _paged(self, endpoint: str, key: str, **request: object) -> AsyncGenerator[Document, None]:
        cursor: str | None = None
        while True:
            page = await self._page(endpoint, cursor=cursor, **request)
            for document in page[key]:
                yield document
            cursor = page["cursor"]
            if cursor is None:
                return
