"""The texts of a plan that name and describe its experiment."""

from collections.abc import Mapping
from typing import Final

from ems_worker.core import ids
from ems_worker.core.language import quotes
from ems_worker.core.language.problems import Problems

_MAX_NAME: Final = 200
_MAX_DESCRIPTION: Final = 10_000
_MAX_TAG: Final = 64
_MAX_TAGS: Final = 64
_ID_FORM: Final = "1 to 64 letters, digits, _ and -, starting with a letter or digit"


def parse(data: Mapping[str, object], problems: Problems) -> dict[str, str | None]:
    """The texts by the names of their keys; None for those that the plan doesn't have."""
    return {
        "experiment_id": _experiment_id(data, problems),
        "experiment_name": _line(data, "experiment_name", _MAX_NAME, problems),
        "description": _text(data, "description", _MAX_DESCRIPTION, problems),
        "model_version": _line(data, "model_version", _MAX_NAME, problems),
        "group": problems.text(data["group"], ("group",), ids.TOKEN, _ID_FORM) if "group" in data else None,
    }


def _experiment_id(data: Mapping[str, object], problems: Problems) -> str | None:
    if "experiment_id" not in data:
        return None
    return problems.text(data["experiment_id"], ("experiment_id",), ids.EXPERIMENT_ID, _ID_FORM)


def _text(data: Mapping[str, object], key: str, max_length: int, problems: Problems) -> str | None:
    text = problems.text(data[key], (key,)) if key in data else None
    if text is not None and len(text) > max_length:
        problems.add("out_of_range", (key,), f"this has {len(text)} characters; at most {max_length} are allowed")
    return text


def _line(data: Mapping[str, object], key: str, max_length: int, problems: Problems) -> str | None:
    text = _text(data, key, max_length, problems)
    if text is not None and (not text.strip() or not text.isprintable()):
        problems.add("bad_format", (key,), f"{quotes.brief(text)} is not one line of visible text")
    return text


def tags(data: object, problems: Problems) -> tuple[str, ...]:
    """The `tags` of a plan, in its order, each once."""
    tags: dict[str, None] = {}
    items = problems.sequence(data, ("tags",)) or ()
    if len(items) > _MAX_TAGS:
        problems.add("out_of_range", ("tags",), f"{len(items)} tags; at most {_MAX_TAGS} are allowed")
        return ()
    for index, item in enumerate(items):
        text = problems.text(item, ("tags", index))
        if text is not None and not (0 < len(text) <= _MAX_TAG and text.isprintable()):
            message = f"a tag is one line of at most {_MAX_TAG} characters"
            problems.add("bad_format", ("tags", index), message)
        elif text is not None:
            tags[text] = None
    return tuple(tags)
