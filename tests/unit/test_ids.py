"""Ids of experiments and runs."""

from hypothesis import example, given
from hypothesis import strategies as st

from ems_worker.core import ids

EXPERIMENT_IDS = st.from_regex(ids.EXPERIMENT_ID, fullmatch=True)


@given(EXPERIMENT_IDS, st.integers(0, 2**32), st.integers(0, 2**20), st.integers(1, 10**6))
@example("a-p000001-r000-a1", 2, 3, 4)
def test_a_simulation_id_is_parsed_into_its_parts(experiment: str, point: int, replicate: int, attempt: int) -> None:
    """Parsing is unambiguous even if the id of the experiment looks like that of a run."""
    text = ids.simulation_id(experiment, point, replicate, attempt)
    parsed = ids.parse_simulation_id(text)
    assert parsed == ids.SimulationId(experiment, point, replicate, attempt)
    assert str(parsed) == text


def test_a_simulation_id_has_the_contract_s_form() -> None:
    """Numbers are padded, so that ids sort in the order of the jobs."""
    assert ids.simulation_id("reef-heat", 7, 12, 1) == "reef-heat-p000007-r012-a1"


def test_other_texts_are_not_simulation_ids() -> None:
    """Other systems publish on the same bus; neither their ids nor other spellings of ours are accepted."""
    for text in (
        "",
        "reef",
        "reef-p1-r000-a1",
        "reef-p0000001-r000-a1",
        "reef-p000001-r0000-a1",
        "reef-p000001-r000-a0",
        "reef-p000001-r000-a01",
        "-p000001-r000-a1",
        "réef-p000001-r000-a1",
        "reef-p000001-r000-a1\n",
        "reef-p\N{ARABIC-INDIC DIGIT ZERO}00001-r000-a1",
        "x" * 65 + "-p000001-r000-a1",
        "x" * 10_000,
    ):
        assert ids.parse_simulation_id(text) is None, text


@given(st.text(max_size=100), st.integers(0, 2**63), st.integers(1, 2**63))
def test_a_derived_experiment_id_is_an_experiment_id(name: str, created: int, sequence: int) -> None:
    """For any name the id is one NATS token, and the same message gives the same id."""
    derived = ids.experiment_id(name, created, sequence)
    assert ids.EXPERIMENT_ID.fullmatch(derived)
    assert derived == ids.experiment_id(name, created, sequence)


def test_a_derived_experiment_id_contains_the_name_and_differs_between_messages() -> None:
    """A recreated stream counts from 1 again and gives different ids."""
    derived = ids.experiment_id("Größe & Wärme: Riff #2", 1_700_000_000_000_000_000, 1)
    assert derived.startswith("groe-warme-riff-2-")
    assert derived != ids.experiment_id("Größe & Wärme: Riff #2", 1_700_000_000_000_000_000, 2)
    assert derived != ids.experiment_id("Größe & Wärme: Riff #2", 1_700_000_000_000_000_001, 1)
    assert ids.experiment_id("魚", 1, 1).startswith("experiment-")


def test_a_simulation_id_in_the_wrong_case_is_recognized() -> None:
    """It must belong to a known experiment; an id in the right case is not such an id."""
    experiments = ids.in_lower_case(["Reef", "deep-sea"])
    for text, meant in (("REEF-P000001-R000-A1", "Reef-p000001-r000-a1"), ("Deep-Sea-p1-r1-a1", None)):
        recognized = ids.in_other_case(text, experiments)
        assert (recognized and str(recognized)) == meant
    assert str(ids.in_other_case("reef-p000001-r000-a1", experiments)) == "Reef-p000001-r000-a1"
    for text in ("Reef-p000001-r000-a1", "other-p000001-R000-a1", "nonsense", ""):
        assert ids.in_other_case(text, experiments) is None


def test_experiments_that_differ_only_in_case_are_left_out() -> None:
    """A third spelling would be ambiguous."""
    assert ids.in_lower_case(["Reef", "reef", "REEF", "sea"]) == {"sea": "sea"}
