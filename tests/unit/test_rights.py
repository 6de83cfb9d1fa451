"""The table of rights agrees with what the worker does, and no role has the rights of another."""

import pytest

from ems_worker.adapters.jetstream import consumers, objects, streams
from ems_worker.core.access import rights

ROLES = {role.name: role for role in rights.ROLES}
CLIENTS = ("publisher", "analysis", "dashboard", "operator")


def test_the_rights_are_on_the_streams_and_consumers_that_the_worker_uses() -> None:
    """The names are those of the JetStream adapter."""
    assert (*(spec.name for spec in streams.SPECS), objects.STREAM) == rights.STREAMS
    assert rights.CONSUMERS == ((streams.PLANS, consumers.PLANS), (streams.EVENTS, consumers.EVENTS))


@pytest.mark.parametrize("role", rights.ROLES, ids=lambda role: role.name)
def test_only_the_administrator_has_a_wildcard_over_the_api(role: rights.Role) -> None:
    """A wildcard would include operations that a later server adds."""
    wide = [subject for subject in role.may_publish("me") if subject.startswith("$JS.") and subject.endswith(">")]
    allowed = {"worker": ["$JS.ACK.EMS_PLANS.ems-worker-plans.>", "$JS.ACK.SIM_EVENTS.ems-worker-events.>"]}
    assert wide == (["$JS.>"] if role.name == "admin" else allowed.get(role.name, []))


def test_the_subjects_of_a_user_contain_its_name() -> None:
    """Two publishers have the same role and different subjects."""
    publisher = ROLES["publisher"]
    assert "ems.experiment.submit.evolution" in publisher.may_publish("evolution")
    assert publisher.may_subscribe("evolution")[-1] == "_INBOX_evolution.>"
    assert not [subject for subject in publisher.may_publish("evolution") if "{" in subject]


def test_the_worker_may_reply_to_every_role_that_may_send_requests() -> None:
    """Its rights and the setting for reply prefixes both include the inboxes of these roles."""
    clients = [role.name for role in rights.ROLES if "ems.api.list" in role.may_publish(role.name)]
    clients += [role.name for role in rights.ROLES if "ems.api.*" in role.may_publish(role.name)]
    assert sorted(clients) == sorted(CLIENTS)
    assert tuple(f"_INBOX_{name}." for name in CLIENTS) == rights.REPLY_PREFIXES
    worker = ROLES["worker"].may_publish("worker")
    inboxes = {subject for subject in worker if subject.startswith("_INBOX")}
    assert inboxes == {f"_INBOX_{name}.>" for name in CLIENTS}


def test_the_broker_configuration_has_every_subject_of_every_role() -> None:
    """This holds for its two forms, users with keys and variables."""
    text = rights.authorization({role.name: f"U{role.name.upper()}" for role in rights.ROLES})
    for role in rights.ROLES:
        block = text.partition(f"nkey: U{role.name.upper()},")[2].partition("nkey:")[0]
        variable = rights.variables().partition(f"\n{role.name.upper()}_RIGHTS: ")[2].partition("\n#")[0]
        for subject in (*role.may_publish(role.name), *role.may_subscribe(role.name)):
            assert f'"{subject}"' in block
            assert f'"{subject}"' in variable
