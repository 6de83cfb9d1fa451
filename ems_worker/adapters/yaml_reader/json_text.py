"""Reads JSON with the standard library's decoder, and checks what the decoder accepts but a plan may not contain."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from ems_worker import errors
from ems_worker.adapters.yaml_reader import limits
from ems_worker.adapters.yaml_reader.positions import START, Position, Positions
from ems_worker.core import canonical
from ems_worker.core.language import problems, quotes
from ems_worker.core.language.quotes import Location
from ems_worker.core.points import scalars

JSON = canonical.JSON

# The quantifiers are possessive: others keep state for backtracking, a hundred bytes per character of a long text.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)
_OPEN: Final = frozenset("[{")
_BETWEEN: Final = frozenset(",:]}")


class _DuplicateError(ValueError):
    """An object has a key twice."""


class _NotJsonError(Exception):
    """The text is not JSON."""


def read(text: str, size: int) -> dict[str, JSON] | None:
    """The object of a JSON text that has `size` bytes; None if the text is not JSON.

    Raises PlanRejected with line and column.
    """
    _refuse_too_many(text, limits.max_values(size))
    data: Any = None
    invalid = False
    try:
        # The hooks also let other threads run, which nothing else does while a long text is decoded.
        data = _decode(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=scalars.integer,
            parse_float=scalars.number,
        )
    except (_DuplicateError, scalars.NotFiniteError):
        invalid = True  # after the handler, so that the exception frees the data decoded so far
    except _NotJsonError:
        return None
    if invalid:
        # The rest of the text may not be JSON, and walking it requires JSON.
        try:
            _decode(text, object_pairs_hook=len, parse_constant=len, parse_int=len, parse_float=len)
        except _NotJsonError:
            return None
        _refuse_invalid(text)
    if not isinstance(data, dict):
        _refuse("wrong_type", "expected an object of keys and values, found a list", START)
    _check(data, text)
    return data


def _decode(text: str, **hooks: Any) -> Any:
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        # A text that starts with a quoted key is meant as JSON, and the messages of the YAML parser would mislead.
        if not re.match(r'\s*\{\s*["}]', text):
            raise _NotJsonError from error
        _refuse("syntax", f"this is not JSON: {error.msg}", (error.lineno, error.colno), cause=error)
    except RecursionError:
        _refuse_deep(text)


def locate(text: str, positions: Positions) -> None:
    """Adds the positions of the wanted locations, in a text that was read successfully before."""
    lines = _Lines(text)
    for location, is_key, start, _ in _walk(text):
        if location in positions.wanted:
            (positions.add_key if is_key else positions.add_value)(location, lines.position(start))


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise _DuplicateError
    return mapping


def _constant(text: str) -> NoReturn:
    raise scalars.NotFiniteError(text)


def _refuse_too_many(text: str, max_values: int) -> None:
    """Rejects a text with too many keys and values before any of them is decoded."""
    if sum(map(text.count, ",:[{")) < max_values:
        return  # the exact number, which excludes characters inside of texts, is not greater
    count = 0
    for token in _TOKEN.finditer(text):
        count += token[0] not in _BETWEEN
        if count > max_values:
            message = f"more than {max_values:,} keys and values, the maximum for a document of this size"
            _refuse("too_large", message, _Lines(text).position(token.start()))


def _check(data: dict[str, JSON], text: str) -> None:
    """Checks nesting, lengths of keys, and surrogates."""
    open_values: list[Iterator[JSON]] = [_inside(data, text)]
    while open_values:
        for value in open_values[-1]:
            if isinstance(value, dict | list):
                if len(open_values) == limits.MAX_DEPTH:
                    _refuse_deep(text)
                open_values.append(_inside(value, text))
                break
            if isinstance(value, str) and not _encodable(value):
                _refuse_invalid(text)
        else:
            open_values.pop()


def _inside(value: dict[str, JSON] | list[JSON], text: str) -> Iterator[JSON]:
    """The values in a list or an object. Rejects invalid keys of an object."""
    if isinstance(value, list):
        return iter(value)
    if not all(len(key) <= limits.MAX_KEY_LENGTH and _encodable(key) for key in value):
        _refuse_invalid(text)
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
    message = f"values are nested more than {limits.MAX_DEPTH} deep"
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in ("]", "}"))
        if depth > limits.MAX_DEPTH:
            _refuse("too_deep", message, _Lines(text).position(token.start()))
    raise AssertionError("a text that nests too deep has a first such position")


def _refuse_invalid(text: str) -> NoReturn:
    """Walks a text in which the decoder met something invalid, and rejects it with the positions."""
    rejected: list[errors.Problem] = []
    lines = _Lines(text)
    seen: set[int] = set()  # the hashes of the locations of keys, a tenth of their size
    for location, is_key, start, lexeme in _walk(text):
        if len(location) > limits.MAX_DEPTH:
            _refuse_deep(text)
        problem = _problem(location, lexeme, seen if is_key else None)
        if problem is not None:
            code, message = problem
            line, column = lines.position(start)
            rejected.append(errors.Problem(code, quotes.path(location), message, line, column, None, location))
        if len(rejected) >= problems.MAX_PROBLEMS:
            break
    raise errors.PlanRejected(rejected)


def _problem(location: Location, lexeme: str, seen: set[int] | None) -> tuple[str, str] | None:
    """The code and message if a value is invalid, or a key if those seen so far are given."""
    if seen is not None:
        if hash(location) in seen:
            return "duplicate_key", f"the key {quotes.brief(location[-1])} is repeated"
        seen.add(hash(location))
        if len(str(location[-1])) > limits.MAX_KEY_LENGTH:
            return "bad_key", f"a key has at most {limits.MAX_KEY_LENGTH} characters"
    if lexeme.startswith('"'):
        if not _encodable(json.loads(lexeme, strict=False)):
            return "bad_text", "half of a surrogate pair is not a character"
        return None
    if lexeme in ("NaN", "Infinity", "-Infinity"):
        return "bad_number", f"{lexeme} is not a finite number"
    try:
        scalars.read(lexeme)
    except scalars.NotFiniteError:
        return "bad_number", f"{quotes.brief(lexeme)} is not a finite number, or does not fit 64 bits"
    return None


def _walk(text: str) -> Iterator[tuple[Location, bool, int, str]]:
    """The keys and values of a JSON text: the location, whether it is the key, the offset, and the first token."""
    above: list[str | int] = []  # the key or index in each open object or list
    objects: list[bool] = []
    key_next = False
    for match in _TOKEN.finditer(text):
        lexeme, start = match[0], match.start()
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
    """The lines and columns of increasing offsets."""

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
