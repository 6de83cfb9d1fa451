"""What a text may not have: integer keys in values, too many values, tags; and how long the messages are."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from tests.support.yaml_texts import refused


@pytest.mark.parametrize(
    "text",
    ["base_config: {classes: {0: fish}}", "parameter_space: {kind: [{0: a}]}", "labels: {0: a}", "0: 1",
     "parameter_space: {kind: {value: {0: a}}}", "runs: [{0: 1}]", "runs: [{params_override: {kind: [{0: a}]}}]",
     "runs: [{params_override: {kind: {value: {0: a}, replace: true}}}]"],
)  # fmt: skip
def test_an_integer_key_is_refused_where_it_is_no_path(text: str) -> None:
    """The configuration of a run would have the key `"0"`: in quotes the plan says so."""
    with pytest.raises(errors.PlanRejected, match=r"put it in quotes \('0'\)"):
        yaml_reader.read_plan(text.encode())
    yaml_reader.read_plan(text.replace("0:", "'0':").encode())


def test_yaml_and_json_have_the_same_limit() -> None:
    """It counts keys and values, and grows with the size of the text."""
    many = 400_000
    assert len(yaml_reader.read_base("".join(f"k{n}: 1\n" for n in range(62_000)).encode()).data) == 62_000
    for text in (f"{{a: [{'1,' * 2 * many}]}}", f'{{"a": [{"1," * 2 * many}1]}}'):
        assert [code for code, _, _ in refused(text)] == ["too_large"]


def test_values_copied_by_aliases_have_a_limit_of_their_own() -> None:
    """A text of a few lines can ask for any number of them."""
    text = f"a: &a [{'1,' * 60_000}]\nb: *a\n"
    copied = yaml_reader.read_base(text.encode()).data
    assert copied["b"] == copied["a"]
    assert refused(f"{text}c: *a", base=True) == [("too_large", 3, 4)]


def test_a_tag_in_a_base_has_a_remedy() -> None:
    """Other readers of YAML act on tags such as !include."""
    with pytest.raises(errors.PlanRejected, match="write the value itself, without the tag"):
        yaml_reader.read_base(b"a: !include other.yaml")


def test_messages_are_short_whatever_the_text() -> None:
    """A decision with a hundred problems has to fit into one message."""
    long = "x" * 900
    for text in (f"a: &{long} 1\nb: *{long}1\n", f"a: !{long} 1", f"{long}: 1\n{long}: 2", f"a: *{long}"):
        for read in (yaml_reader.read_plan, yaml_reader.read_base):
            with pytest.raises(errors.PlanRejected) as rejected:
                read(text.encode())
            assert all(len(problem.message) < 400 for problem in rejected.value.problems)
