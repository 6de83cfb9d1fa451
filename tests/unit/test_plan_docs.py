"""The language's reference: every example in it does what stands below it."""

import itertools
import pathlib
import re

import pytest

import ems_worker
from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical, seeds
from ems_worker.core.points import plan, render, space

DOCS = pathlib.Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "plan-language.md").read_text()
MIGRATION = (DOCS / "plan-language-migration.md").read_text()
_FENCE = re.compile(r"^```(\w+)(?: ([\w ]+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = 6


def outcome(text: str, base: dict[str, canonical.JSON], *, config: bool = False) -> str:
    """What a plan comes to, as the reference shows it: its errors, or its size and points, or a configuration."""
    named = text if "experiment_" in text else f"{text}experiment_name: example\n"
    document = yaml_reader.read_plan(named.encode())
    try:
        made = plan.parse(document.data, base)
    except errors.PlanRejected as rejected:
        return "".join(f"{problem}\n" for problem in yaml_reader.place(rejected.problems, document))
    points = list(space.points(made))
    if config:
        return render.Template(made).render(points[0].params, made.seeds.of(0, 0), "example-p000000-r000-a1").decode()
    count = space.count(made)
    lines = [f"{_many(count.points, 'point')}, {_many(count.jobs, 'job')}"]
    shown = points if len(points) <= SHOWN else points[: SHOWN - 2]
    lines += [_line(point) for point in shown]
    if len(shown) < len(points):
        lines += ["...", _line(points[-1])]
    return "".join(f"{line}\n" for line in lines)


def _line(point: space.Point) -> str:
    params = "".join(f" {name}={canonical.text(value)}" for name, value in point.params.items())
    suffix = "" if point.run_id_suffix is None else f" ({point.run_id_suffix})"
    return f"p{point.index}:{params or ' the base configuration'}{suffix}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def examples(page: str) -> list[tuple[str, str, bool]]:
    """Each plan of a page, what stands below it, and whether that is a configuration."""
    fences = list(_FENCE.finditer(page))
    found = []
    for fence, following in itertools.pairwise(fences):
        if (fence[2] or "").startswith("plan"):
            assert following[1] == "text", f"nothing stands below the plan at {fence.start()}"
            found.append((fence[3], following[3], "config" in fence[2]))
    return found


def base() -> dict[str, canonical.JSON]:
    (text,) = [fence[3] for fence in _FENCE.finditer(REFERENCE) if fence[2] == "base"]
    return yaml_reader.read_base(text.encode()).data


@pytest.mark.parametrize(("text", "below", "config"), examples(REFERENCE) + examples(MIGRATION))
def test_an_example_does_what_stands_below_it(text: str, below: str, config: bool) -> None:
    """Points, errors with their places, or the first run's configuration."""
    assert outcome(text, base(), config=config) == below


def test_there_is_an_example_for_each_feature() -> None:
    """Every key of the language is in an example of the reference."""
    shown = "".join(text for text, _, _ in examples(REFERENCE))
    for key in (*plan.KEYS, "range", "logrange", "values", "value", "expr", "when", "as", "dist", "zip", "max_jobs"):
        if key not in ("base_config", "base_config_path", "base_config_file_path", "experiment_name"):
            assert re.search(rf"\b{key}:", shown), key


def test_every_code_is_on_the_page() -> None:
    """Of errors and warnings, as machines get them."""
    code = re.compile(r"(?:\badd|\b_report|\b_refuse|\bProblem)\(\s*\"([a-z0-9_]+)\"")
    sources = (pathlib.Path(ems_worker.__file__).parent).rglob("*.py")
    codes = {found for source in sources for found in code.findall(source.read_text())}
    assert len(codes) > 40
    listed = REFERENCE.split("## Error codes")[1]
    assert {found for found in codes if f"`{found}`" not in listed} == set()


def test_the_published_seeds_are_those_of_the_code() -> None:
    """Others compute them from the page."""
    rows = re.findall(r"^\| (common|independent) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", REFERENCE, re.MULTILINE)
    assert len(rows) >= 8
    for policy, root, point, replicate, seed in rows:
        assert seeds.seed(policy, int(root), int(point), int(replicate)) == int(seed)
