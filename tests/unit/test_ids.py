"""Names of experiments and runs."""

from hypothesis import example, given
from hypothesis import strategies as st

from ems_worker.core import ids

EXPERIMENT_IDS = st.from_regex(ids.EXPERIMENT_ID, fullmatch=True)


@given(EXPERIMENT_IDS, st.integers(0, 2**32), st.integers(0, 2**20), st.integers(1, 10**6))
@example("a-p000001-r000-a1", 2, 3, 4)
def test_a_simulation_id_reads_back_as_what_it_was_made_of(
    experiment: str, point: int, replicate: int, attempt: int
) -> None:
    """Reading from the right is unambiguous, even for an experiment that is called like a run."""
    text = ids.simulation_id(experiment, point, replicate, attempt)
    parsed = ids.parse_simulation_id(text)
    assert parsed == ids.SimulationId(experiment, point, replicate, attempt)
    assert str(parsed) == text


def test_a_simulation_id_has_the_contract_s_form() -> None:
    """Numbers are padded, so that names sort as the jobs do."""
    assert ids.simulation_id("reef-heat", 7, 12, 1) == "reef-heat-p000007-r012-a1"


def test_what_is_not_one_of_our_names_is_none() -> None:
    """Other systems share the bus: their ids, and spellings that we never make, are not ours."""
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
    """Whatever the name is, the id is one NATS token, and the same message gives the same one."""
    derived = ids.experiment_id(name, created, sequence)
    assert ids.EXPERIMENT_ID.fullmatch(derived)
    assert derived == ids.experiment_id(name, created, sequence)


def test_a_derived_experiment_id_shows_the_name_and_tells_messages_apart() -> None:
    """A stream made anew counts from 1 again, and must not give an old id a second time."""
    derived = ids.experiment_id("Größe & Wärme: Riff #2", 1_700_000_000_000_000_000, 1)
    assert derived.startswith("groe-warme-riff-2-")
    assert derived != ids.experiment_id("Größe & Wärme: Riff #2", 1_700_000_000_000_000_000, 2)
    assert derived != ids.experiment_id("Größe & Wärme: Riff #2", 1_700_000_000_000_000_001, 1)
    assert ids.experiment_id("魚", 1, 1).startswith("experiment-")


def test_a_name_in_the_wrong_case_is_recognized() -> None:
    """By the experiments that there are; a name that is right is none, whether there is such a run or not."""
    experiments = ids.in_lower_case(["Reef", "deep-sea"])
    for text, meant in (("REEF-P000001-R000-A1", "Reef-p000001-r000-a1"), ("Deep-Sea-p1-r1-a1", None)):
        found = ids.in_other_case(text, experiments)
        assert (found and str(found)) == meant
    assert str(ids.in_other_case("reef-p000001-r000-a1", experiments)) == "Reef-p000001-r000-a1"
    for text in ("Reef-p000001-r000-a1", "other-p000001-R000-a1", "nonsense", ""):
        assert ids.in_other_case(text, experiments) is None


def test_experiments_that_differ_in_case_alone_are_not_mixed_up() -> None:
    """Nobody can say which one a third spelling means."""
    assert ids.in_lower_case(["Reef", "reef", "REEF", "sea"]) == {"sea": "sea"}
