"""What each verb does to an experiment: RULES is the whole rule, by verb and by how the experiment stands.

`docs/state-machine.md` is generated from it. What a verb does to a job is in job.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentEvent, ExperimentState, PauseOwner, Standing


class Verb(StrEnum):
    """What people and programs may request of an experiment."""

    PAUSE = "pause"  # start none of its jobs
    RESUME = "resume"  # start its jobs again
    CANCEL = "cancel"  # end it, or the jobs that `where` names, without waiting for results
    RETRY = "retry"  # give jobs that ended without a result another attempt
    EXTEND = "extend"  # add points or replicates to its plan
    SET = "set"  # change its limits
    CLOSE = "close"  # no longer keep it open
    EXCLUDE = "exclude"  # leave jobs out of aggregates, ranking and comparisons
    INCLUDE = "include"  # count excluded jobs again


# The verbs that take `where`.
SELECTING = frozenset({Verb.CANCEL, Verb.RETRY, Verb.EXCLUDE, Verb.INCLUDE})


class Phase(StrEnum):
    """How an experiment stands, as far as it decides what a verb does."""

    GOING = "going"  # accepted or running: its jobs start
    PAUSED = "paused"  # paused: it starts no jobs
    DRAINING = "draining"  # cancelled, and its open runs may end
    STOPPING = "stopping"  # cancelled, and its open runs are being stopped
    ENDED = "ended"  # completed, failed or cancelled


class Action(StrEnum):
    """What a verb does."""

    NOTHING = "nothing"  # changes nothing
    REFUSE = "refused"  # refused: the experiment is being cancelled
    PAUSE = "pause"  # adds the owner `person`, and with `now` pauses open runs
    RESUME = "resume"  # removes every owner but `budget`
    CANCEL = "cancel"  # ends every pause, no longer keeps it open, cancels every job
    HASTEN = "hasten"  # no longer lets open runs end; with `drain`, changes nothing
    JUDGE = "judge"  # judges each job
    REOPEN = "reopen"  # judges each job; the first that it concerns begins a new round
    RECORD = "record"  # applies from now on, or from the next round
    CLOSE = "close"  # no longer keeps it open


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a verb does to an experiment.

    `after`: how it stands then. A new round begins only if the verb concerns at least one job. `changed`: whether
    anything changes; if it `judges`, only if it concerns at least one job. `refused`: why it can't be done, for people.
    `judges`: it is carried out after its reply, one job after another (`extend`: one point); until that is done the
    round doesn't end. `follows`: jobs of points that are yet to be expanded are judged once they are, so the change
    stays open until then.
    """

    after: Standing
    changed: bool = False
    refused: str | None = None
    judges: bool = False
    follows: bool = False

    def reopens(self, before: Standing) -> bool:
        """Whether it begins a new round."""
        return self.after.round > before.round


_V, _P, _A = Verb, Phase, Action
_ALL_PHASES = (_P.GOING, _P.PAUSED, _P.DRAINING, _P.STOPPING, _P.ENDED)


def _row(verb: Verb, *actions: Action) -> dict[tuple[Verb, Phase], Action]:
    return {(verb, phase): action for phase, action in zip(_ALL_PHASES, actions, strict=True)}


RULES: Mapping[tuple[Verb, Phase], Action] = MappingProxyType(
    {
        # going, paused, draining, stopping, ended
        **_row(_V.PAUSE, _A.PAUSE, _A.PAUSE, _A.NOTHING, _A.NOTHING, _A.NOTHING),
        **_row(_V.RESUME, _A.NOTHING, _A.RESUME, _A.NOTHING, _A.NOTHING, _A.NOTHING),
        **_row(_V.CANCEL, _A.CANCEL, _A.CANCEL, _A.HASTEN, _A.NOTHING, _A.NOTHING),
        **_row(_V.RETRY, _A.JUDGE, _A.JUDGE, _A.REFUSE, _A.REFUSE, _A.REOPEN),
        **_row(_V.EXTEND, _A.JUDGE, _A.JUDGE, _A.REFUSE, _A.REFUSE, _A.REOPEN),
        **_row(_V.SET, _A.RECORD, _A.RECORD, _A.RECORD, _A.RECORD, _A.RECORD),
        **_row(_V.CLOSE, _A.CLOSE, _A.CLOSE, _A.CLOSE, _A.CLOSE, _A.NOTHING),
        **_row(_V.EXCLUDE, _A.JUDGE, _A.JUDGE, _A.JUDGE, _A.JUDGE, _A.JUDGE),
        **_row(_V.INCLUDE, _A.JUDGE, _A.JUDGE, _A.JUDGE, _A.JUDGE, _A.JUDGE),
    }
)


def phase(standing: Standing) -> Phase:
    """How the experiment stands."""
    if standing.state in experiment.ENDED:
        return Phase.ENDED
    if standing.cancel is not None:
        return Phase.DRAINING if standing.cancel is CancelMode.DRAIN else Phase.STOPPING
    return Phase.PAUSED if standing.pauses else Phase.GOING


def rule(
    verb: Verb, standing: Standing, *, where: bool, expanded: bool, now: bool = False, drain: bool = False
) -> Ruling:
    """What a verb does to an experiment that stands so.

    `where`: it names jobs. `expanded`: every job is in the manifest. `now`: `pause` pauses open runs too. `drain`:
    `cancel` lets open runs end.
    """
    if where and verb not in SELECTING:
        return Ruling(standing, refused=f"`where` selects jobs, and {verb} is about the whole experiment: leave it out")
    action = RULES[verb, phase(standing)]
    match action:
        case Action.REFUSE:
            return Ruling(standing, refused=f"the experiment is being cancelled: {verb} it once that has ended")
        case Action.PAUSE:
            return _moved(standing, paused(standing, PauseOwner.PERSON, now=now))
        case Action.RESUME:
            return _moved(standing, resumed(standing))
        case Action.CLOSE:
            return _moved(standing, replace(standing, kept_open=False))
        case Action.RECORD:
            return Ruling(standing, changed=True)
        case Action.NOTHING:
            return Ruling(standing)
        case Action.HASTEN if drain:
            return Ruling(standing)
    after = standing
    if action is Action.REOPEN:
        after = next_round(standing)
    elif action in (Action.CANCEL, Action.HASTEN) and not where:
        after = cancelled(standing, CancelMode.DRAIN if drain else CancelMode.STOP)
    return Ruling(after, changed=True, judges=True, follows=not expanded and follows(verb))


def follows(verb: Verb) -> bool:
    """Whether a verb that judges jobs also judges those that are yet to be expanded: they have nothing to retry."""
    return verb is not Verb.RETRY


def paused(standing: Standing, owner: PauseOwner, *, now: bool = False) -> Standing:
    """An open experiment with one more owner of its pause."""
    state = experiment.TRANSITIONS[standing.state, ExperimentEvent.PAUSE] or standing.state
    return replace(standing, state=state, pauses=standing.pauses | {owner}, pause_now=standing.pause_now or now)


def resumed(standing: Standing) -> Standing:
    """An open experiment that only its budget still pauses, if anything. Its open runs go on in any case."""
    pauses = standing.pauses & {PauseOwner.BUDGET}
    to = None if pauses else experiment.TRANSITIONS[standing.state, ExperimentEvent.RESUME]
    return replace(standing, state=to or standing.state, pauses=pauses, pause_now=False)


def cancelled(standing: Standing, mode: CancelMode) -> Standing:
    """An open experiment that is cancelled as a whole. It ends as soon as its jobs have, also if it was kept open."""
    to = experiment.TRANSITIONS[standing.state, ExperimentEvent.CANCEL]
    return replace(
        standing, state=to or standing.state, pauses=frozenset(), pause_now=False, cancel=mode, kept_open=False
    )


def next_round(standing: Standing) -> Standing:
    """An experiment in its next round: one that had ended runs again, any other goes on as it is."""
    if standing.state not in experiment.ENDED:
        return replace(standing, round=standing.round + 1)
    return Standing(ExperimentState.RUNNING, standing.round + 1, kept_open=standing.kept_open)


def _moved(before: Standing, after: Standing) -> Ruling:
    return Ruling(after, changed=after != before)
