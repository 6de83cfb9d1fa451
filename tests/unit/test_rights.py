"""The table of rights agrees with what the worker does, and no role has a right that would be another's."""

import pytest

from ems_worker.adapters.jetstream import consumers, objects, streams
from ems_worker.core.access import rights

ROLES = {role.name: role for role in rights.ROLES}
ASKED = ("publisher", "analysis", "dashboard", "operator")


def test_it_names_the_workers_own_streams_and_consumers() -> None:
    """Rights on other names would be of no use."""
    assert (*(spec.name for spec in streams.SPECS), objects.STREAM) == rights.STREAMS
    assert rights.CONSUMERS == ((streams.PLANS, consumers.PLANS), (streams.EVENTS, consumers.EVENTS))


@pytest.mark.parametrize("role", rights.ROLES, ids=lambda role: role.name)
def test_nobody_but_the_administrator_has_a_wildcard_over_the_api(role: rights.Role) -> None:
    """A wildcard is where rights grow unseen."""
    wide = [one for one in role.may_publish("me") if one.startswith("$JS.") and one.endswith(">")]
    allowed = {"worker": ["$JS.ACK.EMS_PLANS.ems-worker-plans.>", "$JS.ACK.SIM_EVENTS.ems-worker-events.>"]}
    assert wide == (["$JS.>"] if role.name == "admin" else allowed.get(role.name, []))


def test_a_user_has_its_name_in_its_subjects() -> None:
    """Two publishers are two users of one role."""
    publisher = ROLES["publisher"]
    assert "ems.experiment.submit.evolution" in publisher.may_publish("evolution")
    assert publisher.may_subscribe("evolution")[-1] == "_INBOX_evolution.>"
    assert not [one for one in publisher.may_publish("evolution") if "{" in one]


def test_the_worker_may_answer_who_may_ask() -> None:
    """Its rights, and the setting that has to agree with them."""
    asking = [role.name for role in rights.ROLES if "ems.api.list" in role.may_publish(role.name)]
    asking += [role.name for role in rights.ROLES if "ems.api.*" in role.may_publish(role.name)]
    assert sorted(asking) == sorted(ASKED)
    assert tuple(f"_INBOX_{name}." for name in ASKED) == rights.REPLY_PREFIXES
    worker = ROLES["worker"].may_publish("worker")
    assert {one for one in worker if one.startswith("_INBOX")} == {f"_INBOX_{name}.>" for name in ASKED}


def test_a_configuration_has_every_subject_of_every_role() -> None:
    """As users with their keys, and as variables."""
    text = rights.authorization({role.name: f"U{role.name.upper()}" for role in rights.ROLES})
    for role in rights.ROLES:
        block = text.partition(f"nkey: U{role.name.upper()},")[2].partition("nkey:")[0]
        variable = rights.variables().partition(f"\n{role.name.upper()}_RIGHTS: ")[2].partition("\n#")[0]
        for subject in (*role.may_publish(role.name), *role.may_subscribe(role.name)):
            assert f'"{subject}"' in block
            assert f'"{subject}"' in variable
