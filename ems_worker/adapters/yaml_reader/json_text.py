"""JSON the fast way: the standard library's decoder, and checks of what it lets through."""

import json
import re
from collections.abc import Container, Iterator
from typing import Any, Final, NoReturn

from ems_worker import errors
from ems_worker.adapters.yaml_reader import limits
from ems_worker.core import canonical
from ems_worker.core.language import problems
from ems_worker.core.points import scalars

JSON = canonical.JSON
Position = tuple[int, int]

# Possessive: what may be given back later is kept meanwhile, a hundred bytes for each character of a long text.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)
_OPEN: Final = frozenset("[{")
_BETWEEN: Final = frozenset(",:]}")


class _DuplicateError(ValueError):
    """A key is in one object twice."""


class _NotJsonError(Exception):
    """The text is something else."""


def read(text: str, size: int) -> dict[str, JSON] | None:
    """The object that a JSON text of `size` bytes says; None for text that is not JSON.

    Raises PlanRejected with line and column.
    """
    _refuse_many(text, limits.most_values(size))
    data: Any = None
    wrong = False
    try:
        # The hooks have a second use: other threads get their turn in them, and nowhere else in a long text.
        data = _decode(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=scalars.integer,
            parse_float=scalars.number,
        )
    except (_DuplicateError, scalars.NotFiniteError):
        wrong = True  # what was made so far goes with the exception, before more is made
    except _NotJsonError:
        return None
    if wrong:
        # It was seen on the way, perhaps before a place that isn't JSON at all: the walk needs a text that is.
        try:
            _decode(text, object_pairs_hook=len, parse_constant=len, parse_int=len, parse_float=len)
        except _NotJsonError:
            return None
        _refuse_found(text)
    if not isinstance(data, dict):
        _refuse("wrong_type", "expected an object of keys to values, found a list", (1, 1))
    _check(data, text)
    return data


def _decode(text: str, **hooks: Any) -> Any:
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        # What starts as JSON does and has a quoted key is meant as JSON, and YAML's words for it would mislead.
        if not re.match(r'\s*\{\s*["}]', text):
            raise _NotJsonError from error
        _refuse("syntax", f"this is not JSON: {error.msg}", (error.lineno, error.colno), cause=error)
    except RecursionError:
        _refuse_deep(text)


def positions(
    text: str,
    wanted: Container[problems.Place],
    keys: dict[problems.Place, Position],
    values: dict[problems.Place, Position],
) -> None:
    """Fills in where the wanted places of a text that was read before are: their keys and what they hold."""
    lines = _Lines(text)
    for place, is_key, start, _ in _walk(text):
        if place in wanted:
            (keys if is_key else values).setdefault(place, lines.position(start))
            keys.setdefault(place, lines.position(start))


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _DuplicateError
    return made


def _constant(text: str) -> NoReturn:
    raise scalars.NotFiniteError(text)


def _refuse_many(text: str, most: int) -> None:
    """Refuses more keys and values than there may be before any is made."""
    if sum(map(text.count, ",:[{")) < most:
        return  # some of these are in texts, perhaps
    count = 0
    for found in _TOKEN.finditer(text):
        count += found[0] not in _BETWEEN
        if count > most:
            message = f"more than {most:,} keys and values; a document of this size has no more"
            _refuse("too_large", message, _Lines(text).position(found.start()))


def _check(data: dict[str, JSON], text: str) -> None:
    """Depth, lengths of keys, and halves of surrogate pairs."""
    open_ones: list[Iterator[JSON]] = [_inside(data, text)]
    while open_ones:
        for value in open_ones[-1]:
            if isinstance(value, dict | list):
                if len(open_ones) == limits.MOST_DEPTH:
                    _refuse_deep(text)
                open_ones.append(_inside(value, text))
                break
            if isinstance(value, str) and not _encodable(value):
                _refuse_found(text)
        else:
            open_ones.pop()


def _inside(value: dict[str, JSON] | list[JSON], text: str) -> Iterator[JSON]:
    """What a list or an object holds; refuses keys that are none."""
    if isinstance(value, list):
        return iter(value)
    if not all(len(key) <= limits.LONGEST_KEY and _encodable(key) for key in value):
        _refuse_found(text)
    return iter(value.values())


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_deep(text: str) -> NoReturn:
    message = f"values are nested more than {limits.MOST_DEPTH} deep"
    depth = 0
    for lexeme in _TOKEN.finditer(text):
        depth += (lexeme[0] in _OPEN) - (lexeme[0] in ("]", "}"))
        if depth > limits.MOST_DEPTH:
            _refuse("too_deep", message, _Lines(text).position(lexeme.start()))
    raise AssertionError("a document refused as deep has a deep place")


def _refuse_found(text: str) -> NoReturn:
    """Walks the text for what the fast way saw somewhere in it, and says where."""
    found: list[errors.Problem] = []
    lines = _Lines(text)
    seen: set[int] = set()  # of places, by their hashes: a tenth of their size
    for place, is_key, start, lexeme in _walk(text):
        if len(place) > limits.MOST_DEPTH:
            _refuse_deep(text)
        problem = _wrong(place, lexeme, seen if is_key else None)
        if problem is not None:
            line, column = lines.position(start)
            found.append(errors.Problem(problem[0], problems.dotted(place), problem[1], line, column, None, place))
        if len(found) >= problems.MOST:
            break
    raise errors.PlanRejected(found)


def _wrong(place: problems.Place, lexeme: str, seen: set[int] | None) -> tuple[str, str] | None:
    """What is wrong with a value or, where the keys seen so far are given, with a key."""
    if seen is not None:
        if hash(place) in seen:
            return "duplicate_key", f"key {problems.brief(place[-1])} is here twice"
        seen.add(hash(place))
        if len(str(place[-1])) > limits.LONGEST_KEY:
            return "bad_key", f"a key has at most {limits.LONGEST_KEY} letters"
    if lexeme.startswith('"'):
        if not _encodable(json.loads(lexeme, strict=False)):
            return "bad_text", "half of a surrogate pair is no letter"
        return None
    if lexeme in ("NaN", "Infinity", "-Infinity"):
        return "bad_number", f"{lexeme} is not a finite number"
    try:
        scalars.read(lexeme)
    except scalars.NotFiniteError:
        return "bad_number", f"{problems.brief(lexeme)} is not a finite number, or does not fit 64 bits"
    return None


def _walk(text: str) -> Iterator[tuple[problems.Place, bool, int, str]]:
    """Each key and each value of a well-formed text: its place, whether it is the key, its start and first token."""
    above: list[str | int] = []  # the key or number in each open object or list
    objects: list[bool] = []
    key_next = False
    for found in _TOKEN.finditer(text):
        lexeme, start = found[0], found.start()
        if lexeme in ("}", "]"):
            above.pop()
            objects.pop()
            key_next = False
        elif lexeme == ",":
            key_next = objects[-1]
            if not key_next:
                above[-1] = int(above[-1]) + 1
        elif lexeme == ":":
            key_next = False
        elif key_next:
            above[-1] = json.loads(lexeme, strict=False)
            yield tuple(above), True, start, lexeme
        else:
            yield tuple(above), False, start, lexeme
            if lexeme in _OPEN:
                key_next = lexeme == "{"
                objects.append(key_next)
                above.append("" if key_next else 0)


class _Lines:
    """Lines and columns of offsets that only grow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line = 1
        self._start = 0

    def position(self, offset: int) -> Position:
        newlines = self._text.count("\n", self._start, offset)
        if newlines:
            self._line += newlines
            self._start = self._text.rfind("\n", self._start, offset) + 1
        return self._line, offset - self._start + 1


def _refuse(code: str, message: str, position: Position, cause: Exception | None = None) -> NoReturn:
    raise errors.PlanRejected([errors.Problem(code, "", message, *position)]) from cause
