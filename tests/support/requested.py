"""What people request in the stories of `tests/chaos/test_machine.py`, and what the orchestrator answers."""

from typing import Any

from hypothesis import strategies as st

_WHERE = st.sampled_from(
    [None, None, "food >= 1", 'state == "cancelled" or error_kind == "simulation"', "replicate == 0"]
)
_OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "pause": st.fixed_dictionaries({"now": st.booleans()}),
    "resume": st.just({}),
    "cancel": st.fixed_dictionaries({"drain": st.booleans(), "where": _WHERE}),
    "retry": st.fixed_dictionaries({"where": _WHERE}),
    "exclude": st.fixed_dictionaries({"where": _WHERE, "reason": st.sampled_from([None, "a bad host"])}),
    "include": st.fixed_dictionaries({"where": _WHERE}),
    "set": st.fixed_dictionaries({"priority": st.integers(0, 3)}),
    "close": st.just({}),
    "extend": st.sampled_from([{"replicates": 3}, {"add": {"food": [3]}}]),
}
# A verb, and the keys of its request; None: left out.
REQUESTS = st.sampled_from([*_OPTIONS]).flatmap(lambda verb: st.tuples(st.just(verb), _OPTIONS[verb]))
# The codes of answers to STOP, PAUSE and RESUME. SILENCE: STOP is answered with OK, and the run goes on.
STOPS = st.sampled_from(["OK", "OK", "UNAVAILABLE", "UNIMPLEMENTED", "SILENCE"])
PAUSES = st.sampled_from(["OK", "OK", "UNAVAILABLE", "UNIMPLEMENTED"])
