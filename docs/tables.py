"""The tables that pages of docs/ get from the code: settings, metrics, streams, rights, kinds of axes."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ems_worker import settings
from ems_worker.adapters.jetstream import consumers, streams
from ems_worker.cli import exits
from ems_worker.core.access import rights
from ems_worker.core.language import axis_kinds, distributions
from ems_worker.service.base.metrics import Metrics

_DAY_SECONDS = 24 * 3600
_NS = 1_000_000_000


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; `|` in cells is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def all_settings() -> str:
    """A line a setting."""
    rows = []
    for one in settings.describe():
        default = f"`{one.default}`" if one.default and " " not in one.default else one.default or "empty"
        bounds = f" ({one.constraint})" if one.constraint else ""
        unit = f", {one.unit}" if one.unit else ""
        rows.append((f"`{one.name}`", f"`{one.env}`", f"{default}{unit}", f"{one.description}{bounds}"))
    return table(("setting", "variable", "default", "meaning"), rows)


def metrics() -> str:
    """A line an instrument; the names are as /metrics shows them."""
    rows = []
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, _labels(family.name), family.documentation))
    return table(("metric", "kind", "label", "meaning"), rows)


def _labels(name: str) -> str:
    """The labels of an instrument, which its family doesn't tell until one is used."""
    found: Iterable[str] = next(
        (one._labelnames for one in vars(Metrics()).values() if getattr(one, "_name", None) == name), ()
    )
    return ", ".join(f"`{label}`" for label in found)


def exit_codes() -> str:
    """A line an exit code."""
    return table(("code", "meaning"), ((f"`{code.value}`", exits.MEANING[code]) for code in exits.Exit))


def all_streams() -> str:
    """What each stream has to be, and what a new one gets."""
    rows = []
    for spec in streams.SPECS:
        subjects = "<br>".join(f"`{one}`" for one in spec.subjects)
        others = dict(spec.others)
        age = others.pop("max_age", None)
        first = [f"`max_age` {age // _NS // _DAY_SECONDS} days"] if age else []
        given = [*first, *(f"`{key}` {str(value).lower()}" for key, value in others.items())]
        rows.append((f"`{spec.name}`", subjects, f"file, limits, discard {spec.discard}", ", ".join(given)))
    return table(("stream", "subjects", "must be", "a new one gets"), rows)


def all_consumers() -> str:
    """What each consumer has to be."""
    rows = []
    for stream, spec in ((streams.PLANS, consumers.PLANS_SPEC), (streams.EVENTS, consumers.EVENTS_SPEC)):
        least = f"`ack_wait` {consumers.ACK_WAIT_SECONDS} s, `max_ack_pending` {spec.max_ack_pending:,}"
        filters = "the subjects of run events" if spec.filters else "none"
        rows.append((f"`{spec.name}`", f"`{stream}`", filters, least))
    return table(("consumer", "stream", "filter", "at least"), rows)


def all_rights() -> str:
    """What each role may publish and subscribe to; `NAME` stands for the user's name."""
    rows = []
    for role in rights.ROLES:
        publish, subscribe = map(_listed, (role.may_publish("NAME"), role.may_subscribe("NAME")))
        rows.append((role.name, role.does, publish, subscribe))
    return table(("role", "does", "publishes", "subscribes to"), rows)


def _listed(subjects: Sequence[str]) -> str:
    """Subjects a line each; neighbours that differ in the same single token are one line with `{a,b}`."""
    lines: list[list[list[str]]] = []
    for subject in subjects:
        tokens = subject.split(".")
        if lines and (merged := _merged(lines[-1], tokens)) is not None:
            lines[-1] = merged
        else:
            lines.append([[token] for token in tokens])
    joined = (".".join(one[0] if len(one) == 1 else f"{{{','.join(one)}}}" for one in line) for line in lines)
    return "<br>".join(f"`{line}`" for line in joined)


def _merged(line: list[list[str]], tokens: list[str]) -> list[list[str]] | None:
    if len(line) != len(tokens):
        return None
    differing = [index for index, token in enumerate(tokens) if line[index] != [token]]
    wide = [index for index, known in enumerate(line) if len(known) > 1]
    if len(differing) != 1 or (wide and wide != differing):
        return None
    [at] = differing
    return [*line[:at], [*line[at], tokens[at]], *line[at + 1 :]]


def rights_configuration() -> str:
    """deploy/nats/rights.conf."""
    return f"# Made from ems_worker/core/access/rights.py by `make docs`.\n{rights.variables()}"


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
        rows.append((f"`{each.name}`", ", ".join(keys), each.description))
    return table(("`dist`", "keys", "gives"), rows)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "settings": all_settings,
    "metrics": metrics,
    "exit codes": exit_codes,
    "streams": all_streams,
    "consumers": all_consumers,
    "rights": all_rights,
    "axis kinds": all_axis_kinds,
    "distributions": all_distributions,
}
