"""The text of an experiment's plan as it was sent, in parts that fit into replies."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ems_worker import errors
from ems_worker.core.documents import titles
from ems_worker.core.documents.documents import Document
from ems_worker.core.records import Experiment
from ems_worker.service.base.ports import Manifest

# Characters in a reply, well below the usual message limit of a megabyte.
PART = 256 * 1024


class PlanRequest(pydantic.BaseModel):
    """`part` is the plan, or the base configuration that was accepted with it.

    `version`: the present one unless given.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    experiment_id: str
    part: Literal["plan", "base"] = "plan"
    version: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    offset: Annotated[int, Field(ge=0)] = 0


async def read(manifest: Manifest, record: Experiment, request: PlanRequest) -> Document:
    """The reply to a request. Raises errors.NotFound if the plan has no such version."""
    version = request.version or record.plan_version
    sent: bytes | None = record.spec.base
    if request.part == "plan":
        sent = await manifest.plan(record.key, version)
    if sent is None or version > record.plan_version:
        raise errors.NotFound(f"the plan of {record.spec.experiment_id} has no version {version}")
    text = sent.decode("utf-8-sig")
    end = request.offset + PART
    return {
        "schema": titles.PLAN,
        "experiment_id": record.spec.experiment_id,
        "version": version,
        "versions": record.plan_version,
        "part": request.part,
        "text": text[request.offset : end],
        "next_offset": end if end < len(text) else None,
    }
