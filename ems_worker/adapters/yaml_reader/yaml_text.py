"""YAML by its events: nothing is built before it is known to be harmless."""

from collections.abc import Container, Iterator
from typing import Final, NoReturn

import yaml

from ems_worker import errors
from ems_worker.adapters.yaml_reader import limits
from ems_worker.core import canonical
from ems_worker.core.language import problems
from ems_worker.core.points import scalars

JSON = canonical.JSON
Position = tuple[int, int]

# libyaml's parser is ten times as fast; its events are the same.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What to do about the commonest slips, by how the parser's words for them begin.
_REMEDIES: Final = {
    "mapping values are not allowed": "a text with ': ' in it needs quotes, and a key a space after its colon",
    "found character that cannot start": "a text that begins like this needs quotes",
}


def read(text: str, size: int, *, anchors: bool) -> dict[str, JSON]:
    """The mapping that a YAML text says. Raises PlanRejected with line and column."""
    if size > limits.MOST_YAML_BYTES:
        message = f"{size:,} bytes of YAML; at most {limits.MOST_YAML_BYTES:,} are read: send it as JSON"
        _refuse("too_large", message, (1, 1))
    return _Builder(text, anchors=anchors).document()


def positions(
    text: str,
    wanted: Container[problems.Place],
    keys: dict[problems.Place, Position],
    values: dict[problems.Place, Position],
) -> None:
    """Fills in where the wanted places of a text that was read before are: their keys and what they hold."""
    events = _events(text)
    for event in events:
        if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            _find(event, events, (), wanted, keys, values)
            return


def _find(
    event: yaml.Event,
    events: Iterator[yaml.Event],
    place: problems.Place,
    wanted: Container[problems.Place],
    keys: dict[problems.Place, Position],
    values: dict[problems.Place, Position],
) -> None:
    if place in wanted:
        values[place] = _position(event)
        keys.setdefault(place, values[place])
    if isinstance(event, yaml.MappingStartEvent):
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                return
            here = (*place, getattr(key, "value", ""))
            if here in wanted:
                keys[here] = _position(key)
            _find(next(events), events, here, wanted, keys, values)
    elif isinstance(event, yaml.SequenceStartEvent):
        for index, item in enumerate(events):
            if isinstance(item, yaml.SequenceEndEvent):
                return
            _find(item, events, (*place, index), wanted, keys, values)


class _Builder:
    """Builds one document from its events, gathering what is wrong: only syntax and size end the reading."""

    def __init__(self, text: str, *, anchors: bool) -> None:
        self._events = _events(text)
        self._anchors = anchors
        self._anchored: dict[str, JSON] = {}
        self._open: set[str] = set()
        self._nodes = 0
        self._found: list[errors.Problem] = []

    def document(self) -> dict[str, JSON]:
        value: JSON = None
        place = (1, 1)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent):
                continue
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse("many_documents", "a second document starts here; there is to be one", _position(event))
                continue
            place = _position(event)
            value = self._value(event, (), 0)
        if self._found:
            raise errors.PlanRejected(self._found)
        if not isinstance(value, dict):
            what = problems.kind(value) if documents else "nothing"
            _refuse("wrong_type", f"expected a mapping of keys to values, found {what}", place)
        return value

    def _report(self, code: str, message: str, event: yaml.Event, place: problems.Place) -> None:
        line, column = _position(event)
        self._found.append(errors.Problem(code, problems.dotted(place), message, line, column, None, place))
        if len(self._found) >= problems.MOST:
            raise errors.PlanRejected(self._found)

    def _value(self, event: yaml.Event, place: problems.Place, depth: int) -> JSON:
        self._nodes += 1
        if self._nodes > limits.MOST_YAML_NODES:
            message = f"more than {limits.MOST_YAML_NODES:,} values; send it as JSON"
            _refuse("too_large", message, _position(event), place)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor is not None and not self._anchors:
            self._report("anchor", f"plans have no anchors: write the value out (&{event.anchor})", event, place)
        if event.anchor is not None:
            self._open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, place)
        else:
            assert isinstance(event, yaml.CollectionStartEvent)
            value = self._collection(event, place, depth + 1)
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchored[event.anchor] = value
        return value

    def _collection(self, event: yaml.CollectionStartEvent, place: problems.Place, depth: int) -> JSON:
        if depth > limits.MOST_DEPTH:
            message = f"values are nested more than {limits.MOST_DEPTH} deep"
            _refuse("too_deep", message, _position(event), place[:8])
        if event.tag is not None and not event.implicit:
            self._report("tag", f"tags are not allowed ({problems.brief(event.tag)})", event, place)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place, depth)
        items: list[JSON] = []
        for inner in self._events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            items.append(self._value(inner, (*place, len(items)), depth))
        return items

    def _mapping(self, place: problems.Place, depth: int) -> dict[str, JSON]:
        mapping: dict[str, JSON] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event, place, depth)
            if key in mapping:
                self._report("duplicate_key", f"key {problems.brief(key)} is here twice", event, (*place, key))
            mapping[key] = self._value(next(self._events), (*place, key), depth)
        return mapping

    def _key(self, event: yaml.Event, place: problems.Place, depth: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._report("bad_key", "keys are words, not mappings, lists or aliases", event, place)
            self._value(event, place, depth)
            return f"\0{self._nodes}"
        plain = event.tag is None and not event.style
        if plain and event.value == "<<":
            self._report(
                "merge_key", "merge keys are not allowed: write the keys out (or put << in quotes)", event, place
            )
        elif plain and not self._anchors and event.value.isdecimal() and str(int(event.value[:9])) == event.value:
            return str(event.value)  # an element of a list, by number
        else:
            value = self._value(event, (*place, event.value), depth)
            if not isinstance(value, str):
                what = problems.kind(value)
                self._report("bad_key", f"keys are text, and this is {what}: put it in quotes", event, place)
        if len(event.value) > limits.LONGEST_KEY:
            self._report("bad_key", f"a key has at most {limits.LONGEST_KEY} letters", event, place)
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, place: problems.Place) -> JSON:
        text: str = event.value
        if event.tag is not None:
            self._report("tag", f"tags are not allowed ({problems.brief(event.tag)})", event, place)
            return text
        if event.style:
            return text
        if self._anchors and not scalars.same_in_1_1(text):
            message = f"YAML 1.1 and 1.2 read {problems.brief(text)} differently: put it in quotes if it is text"
            self._report("ambiguous_scalar", f"{message}, or write it plainly (1000, 1.0e-3, true)", event, place)
            return text
        try:
            return scalars.read(text)
        except scalars.NotFiniteError:
            message = f"{problems.brief(text)} is not a finite number, or does not fit 64 bits"
            self._report("bad_number", message, event, place)
            return text

    def _alias(self, event: yaml.AliasEvent, place: problems.Place) -> JSON:
        name = event.anchor
        if not self._anchors:
            self._report("anchor", f"plans have no aliases: write the value out (*{name})", event, place)
            return None
        if name in self._open or name not in self._anchored:
            which = "holds itself" if name in self._open else "is not known"
            self._report("anchor", f"the alias *{name} {which}", event, place)
            return None
        return self._copy(self._anchored[name], event, place)

    def _copy(self, value: JSON, event: yaml.Event, place: problems.Place) -> JSON:
        """A copy of its own for each alias, counted like any value, so that aliases of aliases can't multiply."""
        self._nodes += 1
        if self._nodes > limits.MOST_YAML_NODES or len(place) > 2 * limits.MOST_DEPTH:
            _refuse("too_large", "aliases make this too large", _position(event), place[:8])
        if isinstance(value, dict):
            return {key: self._copy(inner, event, (*place, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._copy(inner, event, (*place, index)) for index, inner in enumerate(value)]
        return value


def _events(text: str) -> Iterator[yaml.Event]:
    """The events of a text; what the parser says of bad syntax becomes ours."""
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        context = f" {error.context}" if error.context else ""
        assert mark is not None, "the parser marks what it refuses"
        rest = "\n".join(text.split("\n")[mark.line :])[mark.column :]
        problem = f"{error.problem}{context}"
        if rest.startswith("\t"):
            problem = "lines are indented with spaces, not with tabs"
        if error.context_mark is not None and not rest.strip():
            mark = error.context_mark  # what was opened and never closed, rather than the end of the text
        for words, remedy in _REMEDIES.items():
            problem += f": {remedy}" if problem.startswith(words) else ""
        _refuse("syntax", f"this is not YAML: {problem}", (mark.line + 1, mark.column + 1), cause=error)
    except yaml.reader.ReaderError as error:
        # The position that the error gives is in bytes with one parser, in letters with the other.
        offset = text.index(chr(error.character))
        place = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
        _refuse("syntax", f"this is not YAML: {error.reason} (U+{error.character:04X})", place, cause=error)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    assert mark is not None, "events of a text are marked"
    return mark.line + 1, mark.column + 1


def _refuse(
    code: str, message: str, position: Position, place: problems.Place = (), cause: Exception | None = None
) -> NoReturn:
    problem = errors.Problem(code, problems.dotted(place), message, *position, None, place)
    raise errors.PlanRejected([problem]) from cause
