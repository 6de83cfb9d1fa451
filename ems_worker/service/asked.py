"""The requests of queries, as the service `ems.api.*` takes them."""

from typing import Annotated

import pydantic
from pydantic import Field

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import Which

_PAGE = 100
# After every replicate of a point.
_LAST = 2**63 - 1


class _Request(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class ListRequest(_Request):
    group: str | None = None
    state: ExperimentState | None = None
    tag: str | None = None
    # A part of the name.
    name: str | None = None
    # The beginning of an id, or a whole name.
    like: str | None = None
    since_at: pydantic.AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=_PAGE)] = 50
    cursor: str | None = None


class GetRequest(_Request):
    experiment_id: str


class PageRequest(GetRequest):
    limit: Annotated[int, Field(ge=1, le=_PAGE)] = _PAGE
    cursor: str | None = None


class JobsRequest(PageRequest):
    state: Bucket | None = None
    attempts: bool = False
    point: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    # Needs `point`.
    replicate: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    where: Annotated[str, Field(min_length=1)] | None = None


class ResultsRequest(GetRequest):
    after_seq: Annotated[int, Field(ge=0, lt=2**63)] = 0
    limit: Annotated[int, Field(ge=1, le=_PAGE)] = _PAGE


class ConfigRequest(_Request):
    simulation_id: str
    offset: Annotated[int, Field(ge=0)] = 0


def which(request: ListRequest) -> Which:
    """Which experiments a request is about."""
    since_ms = None if request.since_at is None else int(request.since_at.timestamp() * 1000)
    return Which(request.group, request.state, request.tag, request.name, request.like, since_ms)


def range_of(request: JobsRequest) -> tuple[tuple[int, int, int], tuple[int, int] | None]:
    """The attempt after which the requested jobs begin, and the last of these jobs; None for the last of all."""
    if request.point is None:
        if request.replicate is not None:
            raise errors.RequestRefused("replicate: name the point too")
        return (-1, -1, -1), None
    if request.replicate is None:
        return (request.point, -1, -1), (request.point, _LAST)
    return (request.point, request.replicate, -1), (request.point, request.replicate)
