"""`where`: which jobs a request of a person is about, as an expression over parameters, labels and facts of jobs.

Parameters go by their names or their dotted paths, labels by `label.NAME`. What a job doesn't have is null: a parameter
that its point leaves out, a label, the host of a job that never started. A job at which the expression has no value
(`lr < 0.1` where `lr` is null or a text) doesn't match, and neither does `not` of that; `and` and `or` ignore an
operand without a value where another one decides. So a `where` is either refused before anything changes, or judges
every job.
"""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from ems_worker.core import canonical
from ems_worker.core.language import decimals, expressions, operations, quotes, suggestions, weights
from ems_worker.core.language.expressions import Expression, ExpressionError

JSON = canonical.JSON

# The states of jobs and why they didn't complete; a test compares them with the core's.
STATES: Final = (
    "pending", "submitting", "submitted", "running", "awaiting_metrics", "completed", "failed", "cancelled", "lost",
)  # fmt: skip
ERROR_KINDS: Final = (
    "simulation", "infeasible", "infrastructure", "timeout", "stopped", "refused", "lost", "metrics_missing",
)  # fmt: skip
_LABEL: Final = "label."
# A person writes it, and it is judged at every job.
_MAX_LENGTH: Final = 1000


class Facts(NamedTuple):
    """What is known of a job, by the run that represents it. An infeasible job is `failed`, as in documents."""

    state: str
    error_kind: str | None
    point: int
    replicate: int
    attempt: int
    host: str | None


# Words of `where` that no parameter may be named.
RESERVED: Final = (*Facts._fields, "label")
_WORDS: Final = {"state": STATES, "error_kind": ERROR_KINDS}
_NUMBERS: Final = ("point", "replicate", "attempt")


class _Source(Enum):
    FACT = "fact"
    LABEL = "label"
    PARAMETER = "parameter"


@dataclass(frozen=True, slots=True)
class Where:
    """A condition on jobs. `names`: what it uses, parameters by their names, labels as `label.NAME`."""

    text: str
    names: frozenset[str]
    _expression: Expression = field(repr=False, compare=False)
    # Where the value of each name of the expression comes from, and its key there.
    _sources: tuple[tuple[_Source, str], ...] = field(repr=False, compare=False)

    def holds(self, params: Mapping[str, JSON], labels: Mapping[str, str], job: Facts) -> bool:
        """Whether a job matches, given its point's parameters by name and the labels of its runs.

        False if the expression has no value for this job, or uses a value that is too long for an expression.
        """
        values: list[decimals.Operand] = []
        for source, key in self._sources:
            if source is _Source.PARAMETER:
                value = params.get(key)
            else:
                value = labels.get(key) if source is _Source.LABEL else getattr(job, key)
            if isinstance(value, str | list | dict) and weights.of(value) is None:
                return False
            values.append(decimals.exact(value))
        try:
            return self._expression.compute(values) is True
        except decimals.NO_VALUE:
            return False


def read(text: str, parameters: Mapping[str, str], labels: Collection[str] | None = None) -> Where:
    """Reads a `where` of an experiment with these parameters, as names and their dotted paths (empty for variables).

    `labels`: the names of labels that its runs have; None: a label may have any name. Raises ExpressionError, with a
    suggestion where there is a similar name, also for comparisons that can't be true at any job.
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"a condition that chooses jobs has at most {_MAX_LENGTH:,} characters")
    by_path = {path: name for name, path in parameters.items() if path}

    def known(name: str) -> bool:
        label = name.removeprefix(_LABEL)
        return name in parameters or name in by_path or (label != name and (labels is None or label in labels))

    expression = expressions.read(text, known=known, tolerant=True)
    used = tuple(_stored(name, parameters, by_path, labels, expression=expression) for name in expression.names)
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Compare):
            _check_comparison(node, used)
    _check_condition(expression.tree, used)
    return Where(text, frozenset(used), expression, tuple(map(_source, used)))


def reserved(name: str) -> bool:
    """Whether a name means a fact or label of jobs, even if a parameter has it too."""
    return name in RESERVED or name.startswith(_LABEL)


def _source(name: str) -> tuple[_Source, str]:
    if name in Facts._fields:
        return _Source.FACT, name
    return (_Source.LABEL, name.removeprefix(_LABEL)) if name.startswith(_LABEL) else (_Source.PARAMETER, name)


def _stored(
    name: str,
    parameters: Mapping[str, str],
    by_path: Mapping[str, str],
    labels: Collection[str] | None,
    *,
    expression: Expression,
) -> str:
    """The name under which a job has its value."""
    if name in Facts._fields:
        return name
    if name.startswith(_LABEL):
        label = name.removeprefix(_LABEL)
        if labels is None or label in labels:
            return name
        near = suggestions.nearest(label, labels)
        raise ExpressionError(f"no run has a label {label!r}", near and _LABEL + near)
    if name in parameters or name in by_path:
        return name if name in parameters else by_path[name]
    if name == "label":
        raise ExpressionError("'label' needs the name of a label, such as label.gen")
    if labels is not None and name in labels:
        near = _LABEL + name
    else:
        near = suggestions.nearest(name, dict.fromkeys((*Facts._fields, *parameters, *by_path)))
    known = ", ".join(Facts._fields)
    remedy = expressions.remedy(expression, name)
    raise ExpressionError(f"{name!r} is neither a parameter nor one of {known}, label.NAME{remedy}", near)


def _check_condition(node: ast.expr, used: tuple[str, ...]) -> None:
    """Raises ExpressionError for a value that is never true or false where a condition is needed."""
    if isinstance(node, ast.BoolOp):
        for operand in node.values:
            _check_condition(operand, used)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_condition(node.operand, used)
    elif isinstance(node, ast.Name):
        name = _name(node, used)
        if name in Facts._fields or name.startswith(_LABEL):
            raise ExpressionError(f"{name!r} alone is not a condition: compare it with something")
    elif not isinstance(node, ast.Compare | ast.IfExp) and not (
        isinstance(node, ast.Constant) and isinstance(node.value, bool)
    ):
        raise ExpressionError("a condition must be true or false, and this is a value: compare it with something")


def _check_comparison(node: ast.Compare, used: tuple[str, ...]) -> None:
    """Raises ExpressionError for a fact or label that is compared with a literal that it is never equal to."""
    operands = [node.left, *node.comparators]
    for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
        if isinstance(operator, ast.In | ast.NotIn) and not isinstance(right, ast.List | ast.Tuple):
            continue  # a search in a text
        for one, other in ((left, right), (right, left)):
            if isinstance(one, ast.Name):
                for value in _literals(other):
                    _check_literal(_name(one, used), value)


def _check_literal(name: str, value: object) -> None:
    if name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ExpressionError(f"{name!r} is a number, and this compares it with {quotes.describe(value)}")
    elif name in Facts._fields or name.startswith(_LABEL):
        if value is None and name != "state":
            return
        if not isinstance(value, str):
            quoted = f'"{value}"' if type(value) in (int, float) and name not in _WORDS else None
            message = f"{name!r} is a text, and this compares it with {quotes.describe(value)}"
            raise ExpressionError(message, quoted)
        if name in _WORDS and value not in _WORDS[name]:
            known = _WORDS[name]
            message = f"{name!r} is never {value!r}; it is one of {', '.join(known)}"
            if name == "state" and value in ERROR_KINDS:
                raise ExpressionError(message, f'error_kind == "{value}"')
            raise ExpressionError(message, suggestions.nearest(value, known))


def _literals(node: ast.expr) -> Iterator[object]:
    if isinstance(node, ast.Constant):
        yield node.value
    elif isinstance(node, ast.List | ast.Tuple):
        for item in node.elts:
            yield from _literals(item)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        yield node.operand.value  # a negative number: only its type matters


def _name(node: ast.Name, used: tuple[str, ...]) -> str:
    """The name that this name of the tree stands for."""
    return used[operations.number(node)]
