"""Keeping parameters apart: no value is set twice, no name means two things."""

from ems_worker.core import canonical
from ems_worker.core.language import axes, listed, options, paths, problems


def check(
    base: dict[str, canonical.JSON],
    space: list[axes.Axis],
    runs: listed.Reader,
    inject: options.Inject,
    found: problems.Problems,
) -> None:
    """Reports two of axes, entries of `runs` and injected values that set the same value or go by the same name.

    The name of an axis may not be another path of the base configuration either: expressions would read the axis there.
    """
    taken: dict[paths.Path, str] = {}
    above: dict[paths.Path, str] = {}
    names: dict[str, str] = {}

    def claim(path: paths.Path, who: str, place: problems.Place) -> None:
        other = above.get(path) or next((taken[path[:n]] for n in range(1, len(path) + 1) if path[:n] in taken), None)
        if other is not None:
            found.add("overlapping_paths", place, f"{who} sets what {other} sets too", on_key=True)

    def keep(path: paths.Path, who: str) -> None:
        taken[path] = who
        above.update((path[:n], who) for n in range(1, len(path)))

    for axis in space:
        claim(axis.path, f"{axis.dotted!r}", axis.place)
        keep(axis.path, f"axis {axis.dotted!r}")
    for axis in space:
        for label in dict.fromkeys((axis.name, axis.dotted)):
            other = names.setdefault(label, axis.dotted)
            if other != axis.dotted:
                message = f"{label!r} is {other!r} too; give one of them another name with 'as'"
                found.add("duplicate", axis.place, message, on_key=True)
    told = {*runs.parameters, *(axis.dotted for axis in space)}
    for axis in space:
        if axis.name not in told and paths.resolve(base, paths.split(axis.name)) not in (None, axis.path):
            message = f"the base configuration has another {axis.name!r}, which expressions could not name any more"
            found.add("duplicate", (*axis.place, "as"), f"{message}; take another name")
    for name, path in runs.parameters.items():
        claim(path, f"{name!r}", runs.places[name])
        if names.get(name, name) != name:
            message = f"axis {names[name]!r} is called {name!r}; give it another name with 'as'"
            found.add("duplicate", runs.places[name], message, on_key=True)
    for name, path in runs.parameters.items():
        keep(path, f"an entry of 'runs' with {name!r}")
    for key, target in (("seed", inject.seed), ("simulation_id", inject.simulation_id)):
        if target is not None:
            claim(target, f"the injected {key}", ("inject", key))
