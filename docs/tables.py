"""The generated tables of docs/operations.md, docs/security.md and docs/tables.md."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ems_worker import settings
from ems_worker.adapters.jetstream import consumers, streams
from ems_worker.cli import exits, lists
from ems_worker.core.access import rights
from ems_worker.core.language import axis_kinds, distributions
from ems_worker.service.base.metrics import Metrics

_DAY_SECONDS = 24 * 3600
_NS = 1_000_000_000


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `|` in cells is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def all_settings() -> str:
    """One row per setting."""
    rows = []
    for setting in settings.describe():
        default = setting.default
        shown = f"`{default}`" if default and " " not in default else default or "empty"
        unit = f", {setting.unit}" if setting.unit else ""
        constraint = f" ({setting.constraint})" if setting.constraint else ""
        meaning = f"{setting.description}{constraint}"
        rows.append((f"`{setting.name}`", f"`{setting.env}`", f"{shown}{unit}", meaning))
    return table(("setting", "variable", "default", "meaning"), rows)


def metrics() -> str:
    """One row per metric, with the name that /metrics shows."""
    rows = []
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, _labels(family.name), family.documentation))
    return table(("metric", "kind", "label", "meaning"), rows)


def _labels(name: str) -> str:
    """The labels of a metric, which its family doesn't report until a labelled value exists."""
    instruments = vars(Metrics()).values()
    labels: Iterable[str] = next(
        (instrument._labelnames for instrument in instruments if getattr(instrument, "_name", None) == name), ()
    )
    return ", ".join(f"`{label}`" for label in labels)


def exit_codes() -> str:
    """One row per exit code."""
    return table(("code", "meaning"), ((f"`{code.value}`", exits.MEANING[code]) for code in exits.Exit))


def list_columns() -> str:
    """One row per column of `ems ls`, with its place in the order in which columns are left out."""
    order = sorted((one for one in lists.FIELDS.values() if one.column.drop), key=lambda one: -one.column.drop)
    rows = []
    for one in lists.FIELDS.values():
        place = "only with `--columns`" if not one.usual else f"{order.index(one) + 1}" if one in order else "never"
        cut = f"to {one.column.cut} characters" if one.column.cut else "no"
        rows.append((f"`{one.column.title}`", one.about, place, cut if one.usual else "no"))
    return table(("column", "what", "left out", "cut before"), rows)


def all_streams() -> str:
    """One row per stream: its required configuration, and the further configuration of a new stream."""
    rows = []
    for spec in streams.SPECS:
        subjects = "<br>".join(f"`{one}`" for one in spec.subjects)
        others = dict(spec.initial)
        age = others.pop("max_age", None)
        max_age = [f"`max_age` {age // _NS // _DAY_SECONDS} days"] if age else []
        created_with = [*max_age, *(f"`{key}` {str(value).lower()}" for key, value in others.items())]
        rows.append((f"`{spec.name}`", subjects, f"file, limits, discard {spec.discard}", ", ".join(created_with)))
    return table(("stream", "subjects", "required", "created with"), rows)


def all_consumers() -> str:
    """One row per consumer: its required configuration."""
    rows = []
    for stream, spec in ((streams.PLANS, consumers.PLANS_SPEC), (streams.EVENTS, consumers.EVENTS_SPEC)):
        minimum = f"`ack_wait` {consumers.ACK_WAIT_SECONDS} s, `max_ack_pending` {spec.max_ack_pending:,}"
        filters = "the subjects of run events" if spec.filters else "none"
        rows.append((f"`{spec.name}`", f"`{stream}`", filters, minimum))
    return table(("consumer", "stream", "filter", "minimum"), rows)


def all_rights() -> str:
    """One row per role: what it may publish and subscribe to, with `NAME` for the user's name."""
    rows = []
    for role in rights.ROLES:
        publish, subscribe = map(_listed, (role.may_publish("NAME"), role.may_subscribe("NAME")))
        rows.append((role.name, role.does, publish, subscribe))
    return table(("role", "task", "may publish to", "may subscribe to"), rows)


def _listed(subjects: Sequence[str]) -> str:
    """One line per subject; neighbours that differ in the same single token share a line with `{a,b}`."""
    lines: list[list[list[str]]] = []
    for subject in subjects:
        tokens = subject.split(".")
        if lines and (merged := _merged(lines[-1], tokens)) is not None:
            lines[-1] = merged
        else:
            lines.append([[token] for token in tokens])
    return "<br>".join(f"`{'.'.join(map(_alternatives, line))}`" for line in lines)


def _alternatives(tokens: Sequence[str]) -> str:
    return tokens[0] if len(tokens) == 1 else f"{{{','.join(tokens)}}}"


def _merged(line: list[list[str]], tokens: list[str]) -> list[list[str]] | None:
    """The line with the tokens as an alternative; None if they differ from it in more than one place."""
    if len(line) != len(tokens):
        return None
    differing = [index for index, token in enumerate(tokens) if line[index] != [token]]
    with_alternatives = [index for index, known in enumerate(line) if len(known) > 1]
    if len(differing) != 1 or (with_alternatives and with_alternatives != differing):
        return None
    [at] = differing
    return [*line[:at], [*line[at], tokens[at]], *line[at + 1 :]]


def rights_configuration() -> str:
    """The content of deploy/nats/rights.conf."""
    return f"# Generated from ems_worker/core/access/rights.py by `make docs`.\n{rights.variables()}"


def all_axis_kinds() -> str:
    """One row per form of an axis; the forms of `dist` have a table of their own."""
    forms = [form for kind in axis_kinds.KINDS if kind.key != "dist" for form in kind.forms]
    rows = [(f"`{form.grammar}`", form.description) for form in forms]
    rows.append(("`{dist: ...}`", "samples of a distribution: see [Designs](#designs)"))
    return table(("axis", "gives"), rows)


def all_distributions() -> str:
    """One row per distribution."""
    rows = []
    for each in distributions.FORMS:
        positive = {key for key, schema in each.parameters.items() if "exclusiveMinimum" in schema}
        keys = (f"`{key}`{' above 0' if key in positive else ''}" for key in each.parameters)
        optional = (f"`{key}`" for key in each.optional)
        rows.append((f"`{each.name}`", ", ".join(keys), ", ".join(optional), each.description))
    return table(("`dist`", "keys", "it may have", "gives"), rows)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "settings": all_settings,
    "metrics": metrics,
    "exit codes": exit_codes,
    "list columns": list_columns,
    "streams": all_streams,
    "consumers": all_consumers,
    "rights": all_rights,
    "axis kinds": all_axis_kinds,
    "distributions": all_distributions,
}
