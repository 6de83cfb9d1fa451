"""`inject`: values of a run that are written into its configuration."""

from dataclasses import dataclass

from ems_worker.core import canonical
from ems_worker.core.language import elements, paths, quotes
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON


@dataclass(frozen=True, slots=True)
class Inject:
    """The paths at which a run's configuration gets its seed and simulation id; None: not injected."""

    seed: paths.Path | None = None
    simulation_id: paths.Path | None = None


def parse(data: object, base: dict[str, JSON], problems: Problems) -> Inject:
    """The `inject` of a plan. Its paths may be new; an injected value may replace a scalar, but no mapping or list."""
    location: Location = ("inject",)
    spec = problems.mapping(data, location, "write {seed: path}")
    if spec is None:
        return Inject()
    problems.keys(spec, location, ("seed", "simulation_id"))
    config = ConfigPaths(base, allow_new=True, problems=problems)
    targets: dict[str, paths.Path | None] = {}
    for key in ("seed", "simulation_id"):
        text = problems.text(spec[key], (*location, key)) if key in spec else None
        if text is not None:
            path = config.find(paths.split(text), (*location, key), known_new=True)
            if path is not None and elements.each(base, path) != [path]:
                message = "an injected value has one place, and '*' stands for every element: name one by its index"
                problems.add("bad_path", (*location, key), message)
            elif path is not None:
                _check_target(base, path, (*location, key), problems)
            targets[key] = path
    seed, simulation_id = targets.get("seed"), targets.get("simulation_id")
    if seed is not None and simulation_id is not None and paths.overlapping(seed, simulation_id):
        problems.add("overlapping_paths", (*location, "simulation_id"), "this would overwrite the seed")
    return Inject(seed, simulation_id)


def _check_target(base: dict[str, JSON], path: paths.Path, location: Location, problems: Problems) -> None:
    """Reports a path at which an injected value would replace more than one value."""
    for length in range(1, len(path)):
        parent = paths.get(base, path[:length])
        if not isinstance(parent, dict | list) and parent is not None:
            above = quotes.name(quotes.dotted(path[:length]))
            message = f"{above} is {quotes.describe(parent)}, which a mapping would replace"
            problems.add("bad_path", location, f"{message}: choose a separate path such as run.seed")
            return
    existing = paths.get(base, path)
    if isinstance(existing, dict | list):
        message = f"the base configuration has {quotes.describe(existing)} here, which would be lost"
        problems.add("bad_path", location, f"{message}: choose a path inside it, or a separate path such as run.seed")
