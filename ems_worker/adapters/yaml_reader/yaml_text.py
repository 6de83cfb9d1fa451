"""Reads YAML from the events of the parser, so that nothing is built before it is checked."""

from collections.abc import Iterator
from typing import Final, NoReturn

import yaml

from ems_worker import errors
from ems_worker.adapters.yaml_reader import limits
from ems_worker.adapters.yaml_reader.positions import START, Position, Positions
from ems_worker.core import canonical
from ems_worker.core.language import problems, quotes
from ems_worker.core.language.quotes import Location
from ems_worker.core.points import scalars

JSON = canonical.JSON

# libyaml's parser is ten times as fast; its events are the same.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Characters of the name of an anchor that messages show.
_MAX_NAME: Final = 60
# What to do about the most common mistakes, by the beginning of the parser's message.
_REMEDIES: Final = {
    "mapping values are not allowed": "a text with ': ' in it needs quotes, and a key a space after its colon",
    "found character that cannot start": "a text that begins like this needs quotes",
}


def read(text: str, size: int, *, anchors: bool) -> dict[str, JSON]:
    """The mapping of a YAML text. Raises PlanRejected with line and column."""
    return _Builder(text, limits.max_values(size), anchors=anchors).document()


def locate(text: str, positions: Positions) -> None:
    """Adds the positions of the wanted locations, in a text that was read successfully before."""
    events = _events(text)
    for event in events:
        if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            _locate(event, events, (), positions)
            return


def _locate(event: yaml.Event, events: Iterator[yaml.Event], location: Location, positions: Positions) -> None:
    if location in positions.wanted:
        positions.add_value(location, _position(event))
    if isinstance(event, yaml.MappingStartEvent):
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                return
            here = (*location, getattr(key, "value", ""))
            if here in positions.wanted:
                positions.add_key(here, _position(key))
            _locate(next(events), events, here, positions)
    elif isinstance(event, yaml.SequenceStartEvent):
        for index, item in enumerate(events):
            if isinstance(item, yaml.SequenceEndEvent):
                return
            _locate(item, events, (*location, index), positions)


class _Builder:
    """Builds one document from its events and collects problems: only errors of syntax and size end the reading."""

    def __init__(self, text: str, max_values: int, *, anchors: bool) -> None:
        self._events = _events(text)
        self._anchors = anchors
        self._anchored: dict[str, JSON] = {}
        self._open: set[str] = set()
        self._values = 0
        self._max_values = max_values
        self._copied = 0
        self._problems: list[errors.Problem] = []

    def document(self) -> dict[str, JSON]:
        value: JSON = None
        position = START
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent):
                continue
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse("many_documents", "a second document starts here; only one is allowed", _position(event))
                continue
            position = _position(event)
            value = self._value(event, (), 0)
        if self._problems:
            raise errors.PlanRejected(self._problems)
        if not isinstance(value, dict):
            what = quotes.describe(value) if documents else "nothing"
            _refuse("wrong_type", f"expected a mapping of keys to values, found {what}", position)
        return value

    def _report(self, code: str, message: str, event: yaml.Event, location: Location) -> None:
        line, column = _position(event)
        self._problems.append(errors.Problem(code, quotes.path(location), message, line, column, None, location))
        if len(self._problems) >= problems.MAX_PROBLEMS:
            raise errors.PlanRejected(self._problems)

    def _value(self, event: yaml.Event, location: Location, depth: int) -> JSON:
        self._values += 1
        if self._values > self._max_values:
            message = f"more than {self._max_values:,} keys and values, the maximum for a document of this size"
            _refuse("too_large", message, _position(event), location=location)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, location)
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor is not None and not self._anchors:
            self._report(
                "anchor",
                f"anchors are not allowed in plans: write the value out (&{_brief(event.anchor)})",
                event,
                location,
            )
        if event.anchor is not None:
            self._open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, location)
        else:
            assert isinstance(event, yaml.CollectionStartEvent)
            value = self._collection(event, location, depth + 1)
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchored[event.anchor] = value
        return value

    def _collection(self, event: yaml.CollectionStartEvent, location: Location, depth: int) -> JSON:
        if depth > limits.MAX_DEPTH:
            message = f"values are nested more than {limits.MAX_DEPTH} deep"
            _refuse("too_deep", message, _position(event), location=location[:8])
        if event.tag is not None and not event.implicit:
            self._report("tag", _tag(event.tag), event, location)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(location, depth)
        items: list[JSON] = []
        for inner in self._events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            items.append(self._value(inner, (*location, len(items)), depth))
        return items

    def _mapping(self, location: Location, depth: int) -> dict[str, JSON]:
        mapping: dict[str, JSON] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event, location, depth)
            if key in mapping:
                self._report("duplicate_key", f"the key {quotes.brief(key)} is repeated", event, (*location, key))
            mapping[key] = self._value(next(self._events), (*location, key), depth)
        return mapping

    def _key(self, event: yaml.Event, location: Location, depth: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._report("bad_key", "a key is text, not a mapping, list or alias", event, location)
            self._value(event, location, depth)
            return f"\0{self._values}"
        plain = event.tag is None and not event.style
        if plain and event.value == "<<":
            self._report(
                "merge_key", "merge keys are not allowed: write the keys out (or put << in quotes)", event, location
            )
        elif plain and not self._anchors and _is_index(event.value) and _is_path(location):
            return str(event.value)  # the index of a list element
        else:
            value = self._value(event, (*location, event.value), depth)
            if not isinstance(value, str):
                what = f"a key is text, and this is {quotes.describe(value)}"
                self._report("bad_key", f"{what}: put it in quotes ('{quotes.brief(value)}')", event, location)
        if len(event.value) > limits.MAX_KEY_LENGTH:
            self._report("bad_key", f"a key has at most {limits.MAX_KEY_LENGTH} characters", event, location)
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, location: Location) -> JSON:
        text: str = event.value
        if event.tag is not None:
            self._report("tag", _tag(event.tag), event, location)
            return text
        if event.style:
            return text
        if self._anchors and not scalars.same_in_1_1(text):
            message = f"YAML 1.1 and 1.2 read {quotes.brief(text)} differently: put it in quotes if it is text"
            self._report("ambiguous_scalar", f"{message}, or write it plainly (1000, 1.0e-3, true)", event, location)
            return text
        try:
            return scalars.read(text)
        except scalars.NotFiniteError:
            message = f"{quotes.brief(text)} is not a finite number, or does not fit 64 bits"
            self._report("bad_number", message, event, location)
            return text

    def _alias(self, event: yaml.AliasEvent, location: Location) -> JSON:
        name = event.anchor
        shown = f"*{_brief(name)}"
        if not self._anchors:
            self._report("anchor", f"aliases are not allowed in plans: write the value out ({shown})", event, location)
            return None
        if name in self._open or name not in self._anchored:
            reason = "refers to a value that contains it" if name in self._open else "has no anchor before it"
            self._report("anchor", f"the alias {shown} {reason}", event, location)
            return None
        return self._copy(self._anchored[name], event, location)

    def _copy(self, value: JSON, event: yaml.Event, location: Location) -> JSON:
        """A separate copy for each alias. Its values count, so that aliases of aliases can't multiply without limit."""
        self._copied += 1
        if self._copied > limits.MAX_COPIED or len(location) > 2 * limits.MAX_DEPTH:
            _refuse("too_large", "the values of aliases make this too large", _position(event), location=location[:8])
        if isinstance(value, dict):
            return {key: self._copy(inner, event, (*location, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._copy(inner, event, (*location, index)) for index, inner in enumerate(value)]
        return value


def _is_index(key: str) -> bool:
    return key.isdecimal() and key.isascii() and str(int(key[:9])) == key


def _is_path(location: Location) -> bool:
    """Whether the keys of a mapping at this location are paths of the configuration, and no value of it."""
    if location[:1] == ("runs",):
        inside = location[3:] if location[2:3] == ("params_override",) else None
    elif location[:1] in (("parameter_space",), ("parameters",)):
        inside = location[2:] if location[1:2] and isinstance(location[1], int) else location[1:]
    else:
        inside = None
    return inside is not None and "value" not in inside and all(isinstance(step, str) for step in inside)


def _tag(tag: str) -> str:
    return f"tags are not allowed ({quotes.brief(tag)}): write the value itself, without the tag"


def _brief(name: object) -> str:
    return quotes.cut(str(name), _MAX_NAME)


def _events(text: str) -> Iterator[yaml.Event]:
    """The events of a text. Raises PlanRejected for syntax errors."""
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        context = f" {error.context}" if error.context else ""
        assert mark is not None, "syntax errors have a mark"
        rest = "\n".join(text.split("\n")[mark.line :])[mark.column :]
        problem = f"{error.problem}{context}"
        if rest.startswith("\t"):
            problem = "lines are indented with spaces, not with tabs"
        opened = error.context_mark
        if opened is not None and "expected ',' or" in problem and opened.line < mark.line:
            end = "]" if "']'" in problem else "}"
            problem = f"this is not closed: a '{end}' or ',' is missing before line {mark.line + 1}"
            mark = opened
        elif opened is not None and not rest.strip():
            mark = opened  # where the unclosed value starts, rather than the end of the text
        for start, remedy in _REMEDIES.items():
            problem += f": {remedy}" if problem.startswith(start) else ""
        _refuse("syntax", f"this is not YAML: {problem}", (mark.line + 1, mark.column + 1), cause=error)
    except yaml.reader.ReaderError as error:
        # The position of the error is in bytes with one parser and in characters with the other.
        offset = text.index(chr(error.character))
        position = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
        _refuse("syntax", f"this is not YAML: {error.reason} (U+{error.character:04X})", position, cause=error)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    assert mark is not None, "the events of a text have marks"
    return mark.line + 1, mark.column + 1


def _refuse(
    code: str, message: str, position: Position, *, location: Location = (), cause: Exception | None = None
) -> NoReturn:
    problem = errors.Problem(code, quotes.path(location), message, *position, None, location)
    raise errors.PlanRejected([problem]) from cause
