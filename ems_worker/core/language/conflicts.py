"""Conflicts between parameters: a value that is set twice, a name with two meanings."""

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
        if names.get(name, name) != name:
            message = (
                f"axis {quotes.name(names[name])} has the name {quotes.name(name)}; give it another name with 'as'"
            )
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


def _check_names(config: ConfigPaths, space: list[Axis], listed: ListedPointParser) -> dict[str, str]:
    """Reports names that stand for two parameters. The result has the path of the axis that each name stands for."""
    names: dict[str, str] = {}
    for axis in space:
        for name in dict.fromkeys((axis.name, axis.dotted)):
            other = names.setdefault(name, axis.dotted)
            if other != axis.dotted:
                message = f"{quotes.name(name)} also stands for {quotes.name(other)}"
                remedy = "give one of them another name with 'as'"
                config.problems.add("duplicate", axis.location, f"{message}; {remedy}", on_key=True)
    reported = {*listed.parameters, *(axis.dotted for axis in space)}
    for axis in space:
        if axis.name not in reported and paths.resolve(config.base, paths.split(axis.name)) not in (None, axis.path):
            message = f"the base configuration has another {quotes.name(axis.name)}"
            remedy = "which expressions couldn't refer to any more; choose another name"
            config.problems.add("duplicate", (*axis.location, "as"), f"{message}, {remedy}")
    return names


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
