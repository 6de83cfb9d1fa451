"""Reading YAML and JSON: values, problems, and their positions."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.adapters.yaml_reader import limits
from tests.support.yaml_texts import Problem, refused


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("~", None), ("", None), ("Null", None), ("true", True), ("FALSE", False),
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("y", "y"),
        ("1", 1), ("+5", 5), ("-3", -3), ("010", 10), ("0o10", 8), ("0x1F", 31), ("1_000", "1_000"), ("0b1", "0b1"),
        ("18446744073709551615", 2**64 - 1), ("000000000000000000000000000005", 5),
        ("1.5", 1.5), ("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-.5e+1", -5.0), ("1e", "1e"),
        ("12:30:00", "12:30:00"), ("2024-01-01", "2024-01-01"), ("<", "<"), ("=", "="),
        ('"1"', "1"), ("'no'", "no"), ("|\n  a\n  b\n", "a\nb\n"), ("nan", "nan"), (".infx", ".infx"),
    ],
)  # fmt: skip
def test_scalars_have_the_meaning_of_yaml_1_2(text: str, value: object) -> None:
    """Plain scalars follow the core schema; quoted scalars are text."""
    read = yaml_reader.read_plan(f"key: {text}".encode()).data["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "on", "OFF", "010", "0o7", "1e-3", "1_000", "12:30:00", "1:30.5", "2024-01-01", "2024-1-2 10:00:00",
     "0b101", "1.0e5", "-.5", "=", "0x_1", "1_0.5", "+0123"],
)  # fmt: skip
def test_a_base_scalar_that_the_versions_read_differently_is_refused(text: str) -> None:
    """The simulator may use either version. In a plan, which only the worker reads, the scalar is valid."""
    assert refused(f"fish:\n  count: {text}", base=True) == [("ambiguous_scalar", 2, 10)]
    assert yaml_reader.read_base(f'a: "{text}"'.encode()).data == {"a": text}
    yaml_reader.read_plan(f"a: {text}".encode())


@pytest.mark.parametrize(
    "text",
    ["a", "y", "N", "1", "-1.5", "1.0e-3", "1.5e+10", "true", "null", "~", "0x1F", "0", "a-b", "1.2.3", "+5", ".5",
     "- 1", "5 m", "x: no-w"],
)  # fmt: skip
def test_a_base_scalar_that_both_versions_read_alike_is_valid(text: str) -> None:
    """Ordinary numbers and words need no quotes, and PyYAML reads the same values."""
    data = f"a:\n  {text}".encode()
    assert yaml_reader.read_base(data).data == yaml.safe_load(data)


@given(st.text(st.sampled_from("0123456789+-.:_eExobTZ nyYNfFaA~<="), min_size=1, max_size=8))
def test_a_valid_base_scalar_has_the_same_value_in_pyyaml(text: str) -> None:
    """PyYAML, a reader of YAML 1.1, gives the same value and type for every scalar that is accepted."""
    try:
        document = yaml.safe_load(f"a: {text}")
    except (yaml.YAMLError, ValueError):
        return
    if not isinstance(document, dict) or list(document) != ["a"] or isinstance(document["a"], dict):
        return
    try:
        value = yaml_reader.read_base(f"a: {text}".encode()).data["a"]
    except errors.PlanRejected:
        return
    assert value == document["a"]
    assert type(value) is type(document["a"])


def test_an_alias_in_a_base_is_a_separate_copy() -> None:
    """Setting a value in one copy doesn't change the others."""
    data = yaml_reader.read_base(b"a: &x {b: [1]}\nc: *x\nd: &y text\ne: *y").data
    assert data == {"a": {"b": [1]}, "c": {"b": [1]}, "d": "text", "e": "text"}
    assert data["a"] is not data["c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x", [("anchor", 1, 4), ("anchor", 2, 4)]),
        ("a: {<<: {b: 1}}", [("merge_key", 1, 5)]),
        ("a: !!python/object:os.system x\nb: !t [1]\nc: !m {a: 1}", [("tag", 1, 4), ("tag", 2, 4), ("tag", 3, 4)]),
        ("a: ! 5", [("tag", 1, 4)]),
        ("a: 1\nb: 2\na: 3\nb: 4", [("duplicate_key", 3, 1), ("duplicate_key", 4, 1)]),
        ("a: .nan\nb: [.inf, -.INF]", [("bad_number", 1, 4), ("bad_number", 2, 5), ("bad_number", 2, 11)]),
        ("c: 1e999", [("bad_number", 1, 4)]),
        ("a: 18446744073709551616\nb: -9223372036854775809", [("bad_number", 1, 4), ("bad_number", 2, 4)]),
        ("a: " + "9" * 100_000, [("bad_number", 1, 4)]),
        ("? [a]\n: 1\n? {b: 1}\n: 2", [("bad_key", 1, 3), ("bad_key", 3, 3)]),
        ("*x : 3", [("bad_key", 1, 1), ("anchor", 1, 1)]),
        ("true: 1\n1.5: 2\n~: 3", [("bad_key", 1, 1), ("bad_key", 2, 1), ("bad_key", 3, 1)]),
        ("a: 1\n---\nb: 2", [("many_documents", 2, 1)]),
        ("", [("wrong_type", 1, 1)]),
        ("# only a comment\n", [("wrong_type", 1, 1)]),
        ("just text", [("wrong_type", 1, 1)]),
        ("- a\n- b", [("wrong_type", 1, 1)]),
        ("a: [1, 2", [("syntax", 1, 4)]),
        ("tags: [a\nhold: true\n", [("syntax", 1, 7)]),
        ("x: 1\nlabels: {a: b,\n  c: d\nhold: true\n", [("syntax", 2, 9)]),
        ("a: 1\n b: 2", [("syntax", 2, 3)]),
        ("a: 'x\n", [("syntax", 1, 4)]),
        ("a: \x01", [("syntax", 1, 4)]),
        ("ok: 1\nkey: é\x00", [("syntax", 2, 7)]),
        ("%YAML 3.0\n---\na: 1", [("syntax", 1, 1)]),
        ("a: " + "[" * 100 + "]" * 100, [("too_deep", 1, 67)]),
        ("k" * 1001 + ": 1", [("bad_key", 1, 1)]),
        ("? " + "k" * 1001 + "\n: 1", [("bad_key", 1, 3)]),
    ],
)  # fmt: skip
def test_an_invalid_yaml_plan_has_all_its_problems_with_positions(text: str, expected: list[Problem]) -> None:
    """All problems are reported at once, except that errors of syntax and size end the reading."""
    assert refused(text) == expected


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("description: heat: stress\n", "a text with ': ' in it needs quotes, and a key a space after its colon"),
        ("experiment_name:x\ntags: []\n", "a text with ': ' in it needs quotes, and a key a space after its colon"),
        ("description: @reef\n", "a text that begins like this needs quotes"),
        ("tags: [a\nhold: true\n", r"this is not closed: a '\]' or ',' is missing before line 2"),
        ("labels: {a: b\nhold: true\n", r"this is not closed: a '\}' or ',' is missing before line 2"),
    ],
)
def test_common_syntax_errors_are_reported_with_the_remedy(text: str, remedy: str) -> None:
    """The parser's own message says what it found, but not what to do."""
    with pytest.raises(errors.PlanRejected, match=f": {remedy} "):
        yaml_reader.read_plan(text.encode())


def test_an_invalid_base_has_problems_with_positions() -> None:
    """Aliases need an anchor and must not be inside it, merge keys exist only in YAML 1.1, and keys are text."""
    assert refused("a: *x", base=True) == [("anchor", 1, 4)]
    assert refused("a: &x [*x]", base=True) == [("anchor", 1, 8)]
    assert refused("d: &d {x: 1}\na: {<<: *d}", base=True) == [("merge_key", 2, 5)]
    assert refused("a: {1: b}", base=True) == [("bad_key", 1, 5)]
    assert refused("a: {no: b}", base=True)[0] == ("ambiguous_scalar", 1, 5)


@pytest.mark.parametrize("space", ["parameter_space", "parameters"])
def test_the_index_of_a_list_element_may_be_a_key_of_a_path(space: str) -> None:
    """`species: {0: {speed: [1]}}` is a path to a list element; the key is text, as in JSON."""
    nested = "{species: {0: {speed: [1]}, 12: 1}}"
    data = {"species": {"0": {"speed": [1]}, "12": 1}}
    assert yaml_reader.read_plan(f"{space}: {nested}".encode()).data == {space: data}
    assert yaml_reader.read_plan(f"{space}: [{nested}]".encode()).data == {space: [data]}
    runs = f"runs: [{{params_override: {nested}}}]"
    assert yaml_reader.read_plan(runs.encode()).data == {"runs": [{"params_override": data}]}
    text = f"{space}: {{species: {{00: 1, 1.0: 2, -1: 3}}}}"
    assert [code for code, _, _ in refused(text)] == ["bad_key"] * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n "a": 2}', [("duplicate_key", 2, 2)]),
        ('{"a": {"b": 1, "b": 1}, "c": NaN}', [("duplicate_key", 1, 16), ("bad_number", 1, 30)]),
        ('{"a": [1, -Infinity, 1e999]}', [("bad_number", 1, 11), ("bad_number", 1, 22)]),
        ('{"a": 1e999}', [("bad_number", 1, 7)]),
        ('{"a": 18446744073709551616}', [("bad_number", 1, 7)]),
        ('{"a": ' + "9" * 100_000 + "}", [("bad_number", 1, 7)]),
        ('{"a": "\\ud800"}', [("bad_text", 1, 7)]),
        ('{"\\udc00": 1}', [("bad_text", 1, 2)]),
        ('{"' + "k" * 1001 + '": 1}', [("bad_key", 1, 2)]),
        ('{"a": 1', [("syntax", 1, 8)]),
        ('{\n "a": tru}', [("syntax", 2, 7)]),
        ('{"a": 1} x', [("syntax", 1, 10)]),
        ('{"a": 18446744073709551616, x: {', [("syntax", 1, 29)]),
        ('{"a": {"b": 1, "b": 1}, [}', [("syntax", 1, 25)]),
        ('{"a": NaN]', [("syntax", 1, 10)]),
        ("[1]", [("wrong_type", 1, 1)]),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", [("too_deep", 1, 70)]),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", [("too_deep", 1, 70)]),
        ('{"a": 1, "a": ' + "[" * 100 + "]" * 100 + "}", [("too_deep", 1, 78)]),
        ("{" + ",".join(f'"a{n}": NaN' for n in range(500)) + "}", [("bad_number", 1, 8)]),
    ],
)  # fmt: skip
def test_an_invalid_json_plan_has_its_problems_with_positions(text: str, expected: list[Problem]) -> None:
    """JSON follows the same rules as YAML, and has at most a hundred problems."""
    reported = refused(text)
    assert reported[: len(expected)] == expected
    assert len(reported) in (len(expected), 100)


def test_json_is_read_as_json_and_flow_yaml_as_yaml() -> None:
    """A text that begins like JSON may be YAML; a byte-order mark is ignored."""
    assert yaml_reader.read_plan(b'\xef\xbb\xbf {"a": [1, 1.0, "\\ud83d\\udc1f", null]}').data == {
        "a": [1, 1.0, "\U0001f41f", None]
    }
    assert yaml_reader.read_plan(b'{"a": 1}').format == "json"
    flow = yaml_reader.read_plan(b"{a: 1, b: [no]}")
    assert (flow.data, flow.format) == ({"a": 1, "b": ["no"]}, "yaml")
    assert yaml_reader.read_plan(b"{}").data == {}
    assert refused("[a, b]") == [("wrong_type", 1, 1)]


def test_data_that_is_not_text_is_unreadable() -> None:
    """Such messages go to the dead letters, as do messages that are far too large."""
    with pytest.raises(errors.Unreadable, match="UTF-8"):
        yaml_reader.read_plan(b"a: \xff")
    with pytest.raises(errors.Unreadable, match="bytes"):
        yaml_reader.read_plan(b" " * (limits.MAX_BYTES + 1))


YAML_TEXT = b"""\
# a plan
a:
  b: [1, {c: x}]
"d.e": |
  text
list:
  - one
  - two: 2
"""
JSON_TEXT = b"""{
 "a": {
   "b": [1, {"c": "x"}]},
 "d.e": "te\\"xt",
 "list": ["one",
  {"two": 2}], "empty": [], "none": {}}"""


@pytest.mark.parametrize(
    ("text", "location", "key", "value"),
    [
        (YAML_TEXT, (), (2, 1), (2, 1)),
        (YAML_TEXT, ("a",), (2, 1), (3, 3)),
        (YAML_TEXT, ("a", "b"), (3, 3), (3, 6)),
        (YAML_TEXT, ("a", "b", 1, "c"), (3, 11), (3, 14)),
        (YAML_TEXT, ("d.e",), (4, 1), (4, 8)),
        (YAML_TEXT, ("list", 1), (8, 5), (8, 5)),
        (YAML_TEXT, ("list", 1, "missing"), (8, 5), (8, 5)),
        (YAML_TEXT, ("a", "missing", "more"), (2, 1), (2, 1)),
        (JSON_TEXT, (), (1, 1), (1, 1)),
        (JSON_TEXT, ("a",), (2, 2), (2, 7)),
        (JSON_TEXT, ("a", "b", 0), (3, 10), (3, 10)),
        (JSON_TEXT, ("a", "b", 1, "c"), (3, 14), (3, 19)),
        (JSON_TEXT, ("d.e",), (4, 2), (4, 9)),
        (JSON_TEXT, ("list", 1, "two"), (6, 4), (6, 11)),
        (JSON_TEXT, ("none",), (6, 29), (6, 37)),
        (JSON_TEXT, ("list", 7), (5, 2), (5, 2)),
    ],
)
def test_locations_have_positions_in_the_text(
    text: bytes, location: tuple[str | int, ...], key: tuple[int, int], value: tuple[int, int]
) -> None:
    """Lines and columns count from 1; a location that doesn't exist has the position of the nearest one above it."""
    document = yaml_reader.read_plan(text)
    assert document.locate(location) == key
    assert document.locate(location, value=True) == value


def test_problems_get_their_positions() -> None:
    """Problems have the position of the key or of the value; a problem with a position keeps it."""
    document = yaml_reader.read_plan(b"a:\n  b: 1\n")
    problems = [
        errors.Problem("x", "a.b", "m", location=("a", "b")),
        errors.Problem("x", "a.b", "m", location=("a", "b"), on_key=True),
        errors.Problem("x", "a.b", "m", 7, 8, location=("a", "b")),
    ]
    located = yaml_reader.with_positions(problems, document)
    assert [(problem.line, problem.column) for problem in located] == [(2, 3), (2, 6), (7, 8)]
