"""Conflicts between parameters: a value that is set twice, a name with two meanings."""

from collections.abc import Sequence

from ems_worker.core.language import paths, quotes, where
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.inject import Inject
from ems_worker.core.language.listed import ListedPointParser
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location


def check(config: ConfigPaths, space: list[Axis], listed: ListedPointParser, inject: Inject) -> None:
    """Reports axes, entries of `runs` and injected values that set the same value or have the same name.

    The name of an axis must not be another path of the base configuration either, because expressions couldn't refer
    to that path any more.
    """
    _warn_reserved(config.problems, space, listed)
    setters = _Setters(config)
    for axis in space:
        setters.check(axis.path, f"{quotes.name(axis.dotted)}", axis.location)
        setters.add(axis.path, f"axis {quotes.name(axis.dotted)}")
    names = _check_names(config, space, listed)
    for name, path in listed.parameters.items():
        setters.check(path, f"{quotes.name(name)}", listed.locations[name])
        if name in names and names[name].dotted != name:
            other = quotes.name(names[name].dotted)
            message = f"axis {other} has the name {quotes.name(name)}; give it another name with 'as'"
            config.problems.add("duplicate", listed.locations[name], message, on_key=True)
    # Entries of `runs` may set the same value: each is a point of its own.
    for name, path in listed.parameters.items():
        setters.add(path, f"an entry of 'runs' with {quotes.name(name)}")
    for key, target in (("seed", inject.seed), ("simulation_id", inject.simulation_id)):
        if target is not None:
            setters.check(target, f"the injected {key}", ("inject", key))


def _warn_reserved(problems: Problems, space: list[Axis], listed: ListedPointParser) -> None:
    """Warns about parameters with the name of a fact or label of jobs: a `where` can't refer to their values."""
    unnamed = {axis.dotted: axis.location for axis in space if axis.name == axis.dotted}
    for name, location in {**listed.locations, **unnamed}.items():
        if where.reserved(name):
            message = f"in the conditions that choose jobs, {quotes.name(name)} is not this parameter"
            remedy = "but a property of the job; to refer to the parameter, give it another name with 'as'"
            problems.warn("reserved_name", location, f"{message} {remedy}")


def _check_names(config: ConfigPaths, space: list[Axis], listed: ListedPointParser) -> dict[str, Axis]:
    """Reports names that stand for two parameters. The result has the axis that each name stands for."""
    names: dict[str, Axis] = {}
    for axis in space:
        for name in dict.fromkeys((axis.name, axis.dotted)):
            other = names.setdefault(name, axis)
            if not _same(other, axis) or (axis.is_variable and axis is not other):
                message = f"{quotes.name(name)} also stands for {_described(other)}"
                remedy = "give one of them another name" + ("" if axis.is_variable else " with 'as'")
                config.problems.add("duplicate", axis.location, f"{message}; {remedy}", on_key=True)
    reported = {*listed.parameters, *(axis.dotted for axis in space if not axis.is_variable)}
    for axis in space:
        if axis.name not in reported and paths.resolve(config.base, paths.split(axis.name)) not in (None, axis.path):
            message = f"the base configuration has another {quotes.name(axis.name)}"
            remedy = "which expressions couldn't refer to any more; choose another name"
            location = axis.location if axis.is_variable else (*axis.location, "as")
            config.problems.add("duplicate", location, f"{message}, {remedy}", on_key=axis.is_variable)
    return names


def _same(one: Axis, other: Axis) -> bool:
    """Whether two axes are of the same path, or the same variable."""
    return one.dotted == other.dotted and one.is_variable == other.is_variable


def _described(axis: Axis) -> str:
    return f"the variable {quotes.name(axis.name)}" if axis.is_variable else quotes.name(axis.dotted)


def check_together(spaces: Sequence[Sequence[Axis]], problems: Problems) -> None:
    """Reports what would keep the points of several spaces from being compared: each has its own axes.

    A path has the same name in all spaces, a name stands for the same parameter, and no path leads into another one.
    """
    names: dict[str, Axis] = {}
    earlier: dict[str, Axis] = {}
    exact: dict[paths.Path, Axis] = {}
    above: dict[paths.Path, Axis] = {}
    for space in spaces:
        # What is wrong inside of a space is reported already: these are compared with those of earlier spaces.
        for axis in space:
            _check_name_together(axis, names, earlier, problems)
            prefixes = [axis.path[:length] for length in range(1, len(axis.path))]
            candidates = (above.get(axis.path), *(exact.get(prefix) for prefix in prefixes))
            if (other := next(filter(None, candidates), None)) is not None:
                message = f"this and {quotes.name(other.dotted)} of another space set the same value"
                remedy = "name the same path in both, so that their points can be compared"
                problems.add("overlapping_paths", axis.location, f"{message}: {remedy}", on_key=True)
        for axis in space:
            names.setdefault(axis.name, axis)
            earlier.setdefault(axis.dotted, axis)
            if axis.path:
                exact[axis.path] = axis
                above.update((axis.path[:length], axis) for length in range(1, len(axis.path)))


def _check_name_together(axis: Axis, names: dict[str, Axis], earlier: dict[str, Axis], problems: Problems) -> None:
    """Reports an axis that has another name than in an earlier space, or a name that means something else there."""
    first, other = earlier.get(axis.dotted, axis), names.get(axis.name, axis)
    if not _same(first, axis) or not _same(other, axis):
        meant = first if not _same(first, axis) else other
        message = f"{quotes.name(axis.name)} stands for {_described(meant)} in another space; choose another name"
        problems.add("duplicate", axis.location, message, on_key=True)
    elif first.name != axis.name:
        message = (
            f"{quotes.name(axis.dotted)} is called {quotes.name(axis.name)} here, and {quotes.name(first.name)} in"
        )
        problems.add("duplicate", axis.location, f"{message} another space: give it the same name in all", on_key=True)
    elif first.replace != axis.replace:
        message = f"{quotes.name(axis.dotted)} has 'replace: true' in one space and not in another"
        problems.add("contradiction", axis.location, f"{message}: write it in all or in none", on_key=True)


class _Setters:
    """What sets the value of each path, to find paths that are set twice."""

    def __init__(self, config: ConfigPaths) -> None:
        self._config = config
        self._exact: dict[paths.Path, str] = {}
        self._above: dict[paths.Path, str] = {}

    def check(self, path: paths.Path, setter: str, location: Location) -> None:
        """Reports a setter of a path that is set already, or that leads into or contains such a path."""
        other = next(filter(None, map(self._other, self._config.each(path))), None)
        if other is not None:
            message = f"{setter} sets a value that {other} sets too"
            self._config.problems.add("overlapping_paths", location, message, on_key=True)

    def _other(self, path: paths.Path) -> str | None:
        prefixes = (path[:length] for length in range(1, len(path) + 1))
        return self._above.get(path) or next((self._exact[each] for each in prefixes if each in self._exact), None)

    def add(self, path: paths.Path, setter: str) -> None:
        """Records a setter."""
        for each in self._config.each(path):
            self._exact[each] = setter
            self._above.update((each[:length], setter) for length in range(1, len(each)))
