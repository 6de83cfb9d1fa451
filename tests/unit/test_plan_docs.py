"""The reference of the plan language: its examples, its grammar, its codes and its seeds agree with the code."""

import itertools
import pathlib
import re

import pytest

import ems_worker
from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical, seeds
from ems_worker.core.language import axes, axis_kinds, distributions, version
from ems_worker.core.language.problems import Problems
from ems_worker.core.points import plan, render, space, value_files

DOCS = pathlib.Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "plan-language.md").read_text()
MIGRATION = (DOCS / "plan-language-migration.md").read_text()
_FENCE = re.compile(r"^```(\w+)(?: ([\w. ]+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = 6
# The files that examples name.
FILES = {fence[2]: fence[3] for page in (REFERENCE, MIGRATION) for fence in _FENCE.finditer(page) if fence[1] == "csv"}


def outcome(text: str, base: dict[str, canonical.JSON], *, config: bool = False) -> str:
    """What the reference shows below a plan: its problems, its size and points, or the configuration of a run."""
    named = text if re.search(r"^(name|experiment_\w+):", text, re.MULTILINE) else f"{text}experiment_name: example\n"
    document = yaml_reader.read_plan(named.encode())
    try:
        problems = Problems()
        contents = {name: text.encode() for name, text in FILES.items()}
        parsed = plan.parse(value_files.inlined(document.data, contents, problems), base)
        assert not len(problems)
    except errors.PlanRejected as rejected:
        return "".join(f"{problem}\n" for problem in yaml_reader.with_positions(rejected.problems, document))
    points = list(space.points(parsed))
    if config:
        return (
            render.Template(parsed).render(points[0].params, parsed.seeds.of(0, 0), "example-p000000-r000-a1").decode()
        )
    count = space.count(parsed)
    lines = [f"{_counted(count.points, 'point')}, {_counted(count.jobs, 'job')}"]
    shown = points if len(points) <= SHOWN else points[: SHOWN - 2]
    lines += [_line(point) for point in shown]
    if len(shown) < len(points):
        lines += ["...", _line(points[-1])]
    return "".join(f"{line}\n" for line in lines)


def _line(point: space.Point) -> str:
    params = "".join(f" {name}={canonical.text(value)}" for name, value in point.params.items())
    suffix = "" if point.run_id_suffix is None else f" ({point.run_id_suffix})"
    return f"p{point.index}:{params or ' the base configuration'}{suffix}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def examples(page: str) -> list[tuple[str, str, bool]]:
    """Each plan of a page, the text below it, and whether that is a configuration."""
    fences = list(_FENCE.finditer(page))
    plans = []
    for fence, following in itertools.pairwise(fences):
        if (fence[2] or "").startswith("plan"):
            assert following[1] == "text", f"the plan at {fence.start()} has no text below it"
            plans.append((fence[3], following[3], "config" in fence[2]))
    return plans


def base() -> dict[str, canonical.JSON]:
    (text,) = [fence[3] for fence in _FENCE.finditer(REFERENCE) if fence[2] == "base"]
    return yaml_reader.read_base(text.encode()).data


@pytest.mark.parametrize(("text", "below", "config"), examples(REFERENCE) + examples(MIGRATION))
def test_an_example_has_the_result_below_it(text: str, below: str, config: bool) -> None:
    """The result is its points, its problems with their positions, or the configuration of its first run."""
    assert outcome(text, base(), config=config) == below


# Keys that the examples get from the tests.
GIVEN = {"base_config", "base_config_path", "base_config_file_path", "experiment_name"}
EXAMPLES = "".join(text for text, _, _ in examples(REFERENCE))


@pytest.mark.parametrize("key", sorted({*plan.KEYS, "zip", "max_jobs"} - GIVEN))
def test_every_key_of_a_plan_is_in_an_example(key: str) -> None:
    """The reference shows how each key of a plan is used."""
    assert re.search(rf"\b{key}:", EXAMPLES)


@pytest.mark.parametrize("key", sorted({"as", "when", *(kind.key for kind in axis_kinds.KINDS)}))
def test_every_kind_of_axis_is_in_an_example(key: str) -> None:
    """Inside the mapping of an axis: the key of a kind is never a path of the base configuration there."""
    assert key in axes.KEYS
    assert re.search(rf"[{{,] *{key}: ", EXAMPLES)


FORMS = [form.grammar for kind in axis_kinds.KINDS for form in kind.forms]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_axis_is_in_the_grammar(form: str) -> None:
    """The grammar has a line for each form."""
    grammar = REFERENCE.split("## The grammar")[1].split("## Error codes")[0]
    assert f"| {form}\n" in grammar


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_axis_is_in_a_table(form: str) -> None:
    """The table of axes has a row for each form, and the table of distributions for each `dist`."""
    distribution = next((each.name for each in distributions.FORMS if each.grammar == form), None)
    cell = form.replace("|", "\\|") if distribution is None else distribution
    assert f"\n| `{cell}` |" in REFERENCE


def test_every_code_is_in_the_reference() -> None:
    """The tables of codes have all codes of problems and warnings in the source text."""
    code = re.compile(r"(?:\badd|\bwarn|\b_report|\b_refuse|\bProblem)\(\s*\"([a-z0-9_]+)\"")
    sources = (pathlib.Path(ems_worker.__file__).parent).rglob("*.py")
    codes = {found for source in sources for found in code.findall(source.read_text())}
    assert len(codes) > 40
    listed = REFERENCE.split("## Error codes")[1]
    assert {found for found in codes if f"`{found}`" not in listed} == set()


def test_the_reference_has_the_present_version_of_the_language() -> None:
    """And a row for each version, with what it changed."""
    assert f"The language has a version, now {version.VERSION}," in REFERENCE
    for each in range(1, version.VERSION + 1):
        assert f"\n| {each} | " in REFERENCE.split("## Versions of the language")[1]


def test_the_published_seeds_are_those_of_the_code() -> None:
    """Other programs can compute seeds from the reference, which has test vectors."""
    rows = re.findall(r"^\| (common|independent) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", REFERENCE, re.MULTILINE)
    assert len(rows) >= 8
    for policy, root, point, replicate, seed in rows:
        assert seeds.seed(policy, int(root), int(point), int(replicate)) == int(seed)
