"""Requests for changes, by verb: their JSON, checked."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic import Field

from ems_worker.core.documents import changes
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.service.steering import withdrawal

# Characters.
_MAX_REASON = 500


def _of_others(request_id: str) -> str:
    for own in (changes.OWN_REQUEST, changes.RETENTION_REQUEST):
        if request_id.startswith(own):
            raise ValueError(f"ids that begin with {own} are those of the worker's own changes")
    return request_id


def _finite(value: Any) -> Any:
    """The value. Numbers that aren't finite would be recorded as null, and a parameter may be null."""
    left = [value]
    while left:
        each = left.pop()
        for inner in each.values() if isinstance(each, dict) else each:
            if isinstance(inner, dict | list):
                left.append(inner)
            elif isinstance(inner, float) and not math.isfinite(inner):
                raise ValueError("numbers must be finite, and not NaN")
    return value


def _text_or_object(value: Any) -> Any:
    if isinstance(value, dict):
        return _finite(value)
    if value is None or isinstance(value, str):
        return value
    raise ValueError("should be the text of a plan, or an object")


RequestId = Annotated[str, Field(min_length=1, max_length=128), pydantic.AfterValidator(_of_others)]
Reason = Annotated[str, Field(max_length=_MAX_REASON)]
_Plan = Annotated[str | dict[str, Any] | None, pydantic.PlainValidator(_text_or_object)]
_Values = Annotated[list[Any], Field(min_length=1), pydantic.AfterValidator(_finite)]


class ChangeRequest(pydantic.BaseModel):
    """What every verb understands. It concerns one experiment, or every experiment of a group."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    request_id: RequestId
    experiment_id: str | None = None
    group: str | None = None
    where: Annotated[str, Field(min_length=1)] | None = None
    reason: Reason | None = None
    dry_run: bool = False
    expect_revision: Annotated[int, Field(ge=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _one_target(self) -> Self:
        if not self._everything and (self.experiment_id is None) == (self.group is None):
            raise ValueError("name either an experiment_id or a group")
        if self.expect_revision is not None and self.experiment_id is None:
            raise ValueError("expect_revision is that of one experiment: name its experiment_id")
        return self

    @property
    def _everything(self) -> bool:
        return False


class PauseRequest(ChangeRequest):
    """`now`: running runs are paused too."""

    now: bool = False


class ResumeRequest(ChangeRequest):
    """`all`: the worker itself, which was started with --hold."""

    all: bool = False

    @property
    def _everything(self) -> bool:
        return self.all

    @pydantic.model_validator(mode="after")
    def _all_or_some(self) -> Self:
        if self.all and (self.experiment_id or self.group or self.where or self.reason):
            raise ValueError("all resumes the worker itself: it goes without experiment_id, group, where and reason")
        return self


class CancelRequest(ChangeRequest):
    """`drain`: open runs may end."""

    drain: bool = False


class ExtendRequest(ChangeRequest):
    """The plan to extend to: as a whole, as text or as an object, or as changes of the present one.

    `withdraw`: points that the plan doesn't have any more are withdrawn.
    """

    plan: _Plan = None
    replicates: Annotated[int, Field(ge=1)] | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    add: Mapping[str, _Values] | None = None
    withdraw: bool = False

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        edited = self.replicates is not None or self.samples is not None or bool(self.add)
        if (self.plan is not None) == edited:
            raise ValueError("give either a plan, or replicates, samples or add")
        return self


class ExcludeRequest(ChangeRequest):
    """`reason` is why the jobs don't count, and is shown with each of them."""

    @pydantic.model_validator(mode="after")
    def _own_reason(self) -> Self:
        if self.reason == withdrawal.REASON:
            raise ValueError(f"the reason {self.reason!r} is that of withdrawn points: choose another")
        return self


class SetRequest(ChangeRequest):
    """Limits by their keys in a plan; null returns to that of the plan."""

    priority: Any = None
    max_concurrent: Any = None
    max_failed: Any = None
    budget: Any = None

    @property
    def limits(self) -> Mapping[str, Any]:
        """The limits that the request names."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set & _LIMITS)}

    @pydantic.model_validator(mode="after")
    def _any_limit(self) -> Self:
        if not self.model_fields_set & _LIMITS:
            raise ValueError("name a limit to set: priority, max_concurrent or max_failed")
        return self


_LIMITS = frozenset({"priority", "max_concurrent", "max_failed", "budget"})

MODELS: Mapping[Verb, type[ChangeRequest]] = {
    **dict.fromkeys(Verb, ChangeRequest),
    Verb.PAUSE: PauseRequest,
    Verb.RESUME: ResumeRequest,
    Verb.CANCEL: CancelRequest,
    Verb.EXTEND: ExtendRequest,
    Verb.EXCLUDE: ExcludeRequest,
    Verb.SET: SetRequest,
}


def stored(request: ChangeRequest) -> Mapping[str, Any]:
    """The request as it is recorded and published: the keys that were sent."""
    return request.model_dump(mode="json", exclude_unset=True)
