"""`where`: which jobs it chooses, and what is refused before it judges any."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import canonical
from ems_worker.core.language import expressions, where
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import PointRecord
from tests.support import steps

PARAMETERS = {"lr": "optimizer.lr", "fish.count": "fish.count", "on": "flags.on", "name": "name"}
PARAMETERS |= {"tank-size": "tank-size", "size": "tank-2"}
VALUES: dict[str, canonical.JSON] = {"lr": 0.02, "fish.count": 5, "on": True, "name": "cod"}
VALUES |= {"tank-size": 5, "size": "big"}
POINT = PointRecord(3, VALUES, labels={"gen": "7", "a.b": "x", "a-b": "y"})
JOB = where.Facts("failed", "simulation", 3, 1, 2, "n17")
PENDING = where.Facts("pending", None, 3, 1, 1, None)


def holds(text: str, job: where.Facts = JOB, point: PointRecord = POINT) -> bool:
    return where.read(text, PARAMETERS).holds(point.params, point.labels or {}, job)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('lr > 0.01 and state == "failed"', True),
        ('lr > 0.1 and state == "failed"', False),
        ("optimizer.lr == 0.02", True),
        ("fish.count in [5, 6] and not (fish.count > 5)", True),
        ('label.gen == "7"', True),
        ('label.a.b == "x" and label.gen != "8"', True),
        ('label.a-b == "y" and tank-size-2 == 3 and tank-2 == "big"', True),
        ('host == "n17" and point == 3 and replicate == 1 and attempt == 2', True),
        ('error_kind in ["simulation", "lost"]', True),
        ('"infeas" in error_kind', False),
        ("2 < point <= 3", True),
        ("on", True),
        ("not on or name == 'cod'", True),
        ("on == false", False),
        ("name == 'cod' if on else point == 0", True),
        ("true", True),
        ("false", False),
        ("int(label.gen) > 6", True),
        ("point % 2 == 1", True),
        ("point == -3 or -1 == point", False),
    ],
)
def test_a_where_chooses_jobs_by_parameters_labels_and_facts(text: str, expected: bool) -> None:
    """Parameters go by their names or paths."""
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host == null and label.other == null", True),
        ("error_kind == null", True),
        ('host != "n17"', True),
        ('host < "n17"', False),
        ('not (host < "n17")', False),
        ('host < "n17" or state == "pending"', True),
        ('state == "pending" or host < "n17"', True),
        ('host < "n17" and state == "pending"', False),
        ('host < "n17" or state == "failed"', False),
        ('not (host < "n17" and state == "failed")', True),
        ('"n" in host', False),
        ("1 < name < 5", False),
        ("1 / (point - 3) > 1", False),
        ("name", False),
        ("name and on", True),
        ("on and name", False),
        ("1 if on else 2", False),
    ],
)
def test_a_job_for_which_there_is_no_value_is_not_chosen(text: str, expected: bool) -> None:
    """What a job doesn't have is null. `and` and `or` decide by the other parts, whatever the order."""
    assert holds(text, PENDING) is expected


def test_a_parameter_that_a_point_leaves_out_is_null() -> None:
    """The value of the base configuration doesn't take its place."""
    without = PointRecord(0, {"fish.count": 5})
    assert holds("lr == null", point=without)
    assert not holds("lr < 1", point=without)


@pytest.mark.parametrize("value", ["x" * 1001, [0] * 1001, {str(n): n for n in range(1001)}])
def test_values_that_are_too_long_for_expressions_choose_no_job(value: canonical.JSON) -> None:
    """So judging a job never takes long."""
    assert not holds("name == name", point=PointRecord(0, {"name": value}))
    assert holds("name == name", point=PointRecord(0, {"name": "x" * 1000}))


def test_the_names_of_a_where_are_those_of_points_and_facts() -> None:
    """`retry` decides by them which jobs a person means."""
    text = 'optimizer.lr > 1 or lr > 2 or label.gen == "7" or error_kind == "infeasible" or label.gen == "8"'
    assert where.read(text, PARAMETERS).names == {"lr", "label.gen", "error_kind"}
    assert where.read("true", {}).names == frozenset()


@pytest.mark.parametrize(
    ("text", "message", "suggestion"),
    [
        ('staet == "failed"', "'staet' is neither a parameter nor", "state"),
        ("fish.cuont > 1", "'fish.cuont' is neither a parameter nor", "fish.count"),
        ("optimiser.lr > 1", "'optimiser.lr' is neither", "optimizer.lr"),
        ("state == failed", "label.NAME; if it is a text, put it in quotes: 'failed'", None),
        ('label == "x"', "'label' needs the name of a label, such as label.gen", None),
        ('state == "faild"', "'state' is never 'faild'; it is one of pending, submitting", "failed"),
        ('state in ["failed", "infeasible"]', "'state' is never 'infeasible'", 'error_kind == "infeasible"'),
        ('"timout" == error_kind', "'error_kind' is never 'timout'", "timeout"),
        ("state == null", "'state' is a text, and this compares it with null", None),
        ("state != 1", "'state' is a text", None),
        ("label.gen == 7", "'label.gen' is a text, and this compares it with the number 7", '"7"'),
        ("label.gen > 7.5", "'label.gen' is a text", '"7.5"'),
        ("host == true", "'host' is a text, and this compares it with true", None),
        ('point == "3"', "'point' is a number, and this compares it with the text '3'", None),
        ("1 < replicate < null", "'replicate' is a number, and this compares it with null", None),
        ("attempt in [1, true]", "'attempt' is a number", None),
        ("point", "'point' alone is not a condition: compare it with something", None),
        ("on and not label.gen", "'label.gen' alone is not a condition", None),
        ("lr + 1", "a condition must be true or false, and this is a value", None),
        ("5", "a condition must be true or false", None),
        ("len(name)", "a condition must be true or false", None),
        ("on or 'cod'", "a condition must be true or false", None),
        ("lr = 1", "compare two values with ==", None),
        ("", "not a complete expression", None),
        ("on or " * 200 + "on", "at most 1,000 characters", None),
    ],
)
def test_a_where_that_can_only_be_a_mistake_is_refused(text: str, message: str, suggestion: str | None) -> None:
    """It is refused before any job is judged, with a suggestion if there is one."""
    with pytest.raises(expressions.ExpressionError, match=re.escape(message)) as refused:
        where.read(text, PARAMETERS)
    assert refused.value.suggestion == suggestion


@pytest.mark.parametrize(("text", "suggestion"), [("label.gne == 'x'", "label.gen"), ("gen == '7'", "label.gen")])
def test_known_labels_are_checked(text: str, suggestion: str) -> None:
    """If the labels of all runs are known, another label is an error, and a label without its prefix is found."""
    with pytest.raises(expressions.ExpressionError) as refused:
        where.read(text, {}, {"gen", "wave"})
    assert refused.value.suggestion == suggestion
    assert where.read("label.gen == '7'", {}, {"gen"}).holds({}, {"gen": "7"}, JOB)
    with pytest.raises(expressions.ExpressionError) as far:
        where.read("label.xyz == '7'", {}, {"gen"})
    assert far.value.suggestion is None


def test_the_words_are_those_of_jobs() -> None:
    """The states are those that documents show, in which infeasible jobs are failed ones."""
    assert set(where.STATES) == {*Bucket} - {Bucket.INFEASIBLE}
    assert set(where.ERROR_KINDS) == {*ErrorKind}


def test_facts_come_before_parameters_of_the_same_name() -> None:
    """Such a parameter can't be referred to; the plan has a warning about it."""
    chosen = where.read('state == "failed" and label.gen == "7"', {"state": "state", "label.gen": "label.gen"})
    assert chosen.holds({"state": "x", "label.gen": "y"}, {"gen": "7"}, JOB)
    assert [name for name in ("state", "label.x", "label", "states") if where.reserved(name)] == [
        "state", "label.x", "label",
    ]  # fmt: skip


def test_judging_a_job_takes_few_steps() -> None:
    """A million jobs take seconds."""
    chosen = where.read('lr > 0.01 and state == "failed" or host == "n17"', PARAMETERS)

    def judge() -> None:
        for _ in range(100):
            chosen.holds(POINT.params, {}, JOB)

    assert steps.of(judge) < 100 * 60


PARTS = st.sampled_from(
    ["lr > 0.01", "lr < name", "on", "host == null", "host > 'a'", "1 / (point - 3) > 0", "label.x == null", "false"]
)
CONDITIONS = st.recursive(
    PARTS,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda each: "({}) {} ({})".format(*each)),
    ),
    max_leaves=8,
)


@given(CONDITIONS, st.sampled_from([JOB, PENDING]))
def test_no_job_is_chosen_by_a_condition_and_by_its_opposite(text: str, job: where.Facts) -> None:
    """So that `where` and `not (where)` never both take a job, and either order of `and` chooses the same."""
    assert not (holds(text, job) and holds(f"not ({text})", job))
    assert holds(f"({text}) and (lr < name)", job) == holds(f"(lr < name) and ({text})", job)
    assert holds(f"({text}) or (lr < name)", job) == holds(f"(lr < name) or ({text})", job)


REFERENCE = (Path(__file__).parents[2] / "docs/plan-language.md").read_text()
SECTION = REFERENCE.split("## Conditions that choose jobs")[1].split("\n## ")[0]
EXAMPLES = re.findall(r"^\| `([^`]* [^`]*)` \| ", SECTION, re.M)


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_reference_can_be_read(text: str) -> None:
    """With the parameters of its plans."""
    assert len(EXAMPLES) >= 7
    assert where.read(text, {"growth": "growth", "env.temp": "env.temp"}).text == text


def test_the_reference_has_all_words() -> None:
    """The states, the kinds of error, and the names that parameters must not have."""
    for word in (*where.STATES, *where.ERROR_KINDS, *where.RESERVED):
        assert f"`{word}`" in SECTION
