"""Each person sees and changes what is theirs; superusers everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from sessions_app.models import Agent, CallRecord, Node, PhoneNumber
from tests.unit.admin.conftest import signed_in, staff

Make = Callable[..., Agent]

AGENT_FORM = {
    "greeting": "",
    "instructions": "Be kind.",
    "language": "en-GB",
    "voice": "openai:marin",
    "model": "",
    "turn_detection": "server_vad",
    "vad_threshold": "0.5",
    "vad_prefix_ms": "300",
    "vad_silence_ms": "500",
    "max_call_s": "0",
    "nudge_after_s": "10",
    "nudges_max": "2",
    "when_busy": "apologise",
    "apology": "",
    "fallback_number": "",
}


def page(model: str, view: str, *args: object) -> str:
    return reverse(f"admin:sessions_app_{model}_{view}", args=args)


def test_lists_show_only_ones_own_rows_and_superusers_see_all(
    alice: User,
    bob: User,
    root: User,
    agent_of: Make,
    number_of: Callable[..., PhoneNumber],
    call_of: Callable[..., CallRecord],
) -> None:
    for user, digits in ((alice, "0"), (bob, "1")):
        agent = agent_of(user)
        number_of(user, agent, f"44207946000{digits}")
        call_of(user, f"call-of-{user.username}", agent=agent, agent_name=agent.name)
    shown = {
        model: signed_in(alice).get(page(model, "changelist")).content.decode()
        for model in ("agent", "phonenumber", "callrecord")
    }
    assert "alice&#x27;s agent" in shown["agent"]
    assert "442079460000" in shown["phonenumber"]
    for text in shown.values():
        assert "bob&#x27;s agent" not in text
        assert "442079460001" not in text
    everything = signed_in(root).get(page("callrecord", "changelist")).content.decode()
    assert "alice&#x27;s agent" in everything and "bob&#x27;s agent" in everything


@pytest.mark.parametrize("view", ["change", "history", "delete"])
def test_somebody_elses_agent_has_no_page(
    view: str, alice: User, bob: User, agent_of: Make
) -> None:
    theirs = agent_of(bob)
    answer = signed_in(alice).get(page("agent", view, theirs.pk))
    assert answer.status_code in (302, 403)
    assert b"Be kind" not in answer.content


def test_an_old_version_of_somebody_elses_agent_cannot_be_read_or_restored(
    alice: User, bob: User, agent_of: Make
) -> None:
    theirs = agent_of(bob)
    version = Agent.history.get(id=theirs.pk)
    address = page("agent", "simple_history", theirs.pk, version.pk)
    client = signed_in(alice)
    assert client.get(address).status_code == 403
    assert client.post(address, {"name": "mine now", **AGENT_FORM}).status_code == 403
    theirs.refresh_from_db()
    assert theirs.name == "bob's agent"


@pytest.mark.parametrize("view", ["change", "live", "hang_up", "number"])
def test_somebody_elses_call_has_no_page(
    view: str, alice: User, bob: User, call_of: Callable[..., CallRecord]
) -> None:
    theirs = call_of(bob, "private")
    client = signed_in(alice)
    for answer in (
        client.get(page("callrecord", view, theirs.pk)),
        client.post(page("callrecord", view, theirs.pk)),
    ):
        assert answer.status_code in (302, 403, 404)
        assert b"447700900123" not in answer.content
    assert not theirs.commands.exists()


def test_whoever_adds_an_agent_owns_it_and_sets_neither_owner_nor_default(
    alice: User, bob: User
) -> None:
    client = signed_in(alice)
    form = client.get(page("agent", "add")).content.decode()
    assert 'name="owner"' not in form and 'name="is_default"' not in form
    sent = {"name": "New", "owner": str(bob.pk), "is_default": "on", **AGENT_FORM}
    assert client.post(page("agent", "add"), sent).status_code == 302
    made = Agent.objects.get(name="New")
    assert made.owner == alice
    assert not made.is_default


def test_an_owner_who_changes_an_agent_cannot_give_it_away(
    alice: User, bob: User, agent_of: Make
) -> None:
    mine = agent_of(alice)
    sent = {"name": "Renamed", "owner": str(bob.pk), "is_default": "on", **AGENT_FORM}
    assert signed_in(alice).post(page("agent", "change", mine.pk), sent).status_code == 302
    mine.refresh_from_db()
    assert (mine.name, mine.owner, mine.is_default) == ("Renamed", alice, False)


def test_a_restored_version_keeps_todays_owner(alice: User, bob: User, agent_of: Make) -> None:
    agent = agent_of(bob)
    agent.owner = alice
    agent.save()
    first = Agent.history.filter(id=agent.pk).earliest()
    address = page("agent", "simple_history", agent.pk, first.pk)
    assert signed_in(alice).post(address, {"name": "As it was", **AGENT_FORM}).status_code == 302
    agent.refresh_from_db()
    assert (agent.name, agent.owner) == ("As it was", alice)


def test_who_may_only_look_restores_nothing(agent_of: Make, db: None) -> None:
    viewer = staff("viewer", "view_agent")
    agent = agent_of(viewer, "First")
    agent.name = "Second"
    agent.save()
    first = Agent.history.filter(id=agent.pk).earliest()
    address = page("agent", "simple_history", agent.pk, first.pk)
    client = signed_in(viewer)
    assert client.get(address).status_code == 200
    assert client.post(address, {"name": "First", **AGENT_FORM}).status_code == 403
    agent.refresh_from_db()
    assert agent.name == "Second"


def test_a_number_leads_only_to_ones_own_agents(alice: User, bob: User, agent_of: Make) -> None:
    mine, theirs = agent_of(alice), agent_of(bob)
    client = signed_in(alice)
    assert "bob&#x27;s agent" not in client.get(page("phonenumber", "add")).content.decode()
    refused = client.post(
        page("phonenumber", "add"), {"number": "+44 20 7946 0000", "agent": theirs.pk}
    )
    assert refused.status_code == 200 and not PhoneNumber.objects.exists()
    client.post(page("phonenumber", "add"), {"number": "+44 20 7946 0000", "agent": mine.pk})
    made = PhoneNumber.objects.get()
    assert (made.number, made.owner, made.agent) == ("442079460000", alice, mine)


def test_what_the_model_refuses_the_form_says(root: User) -> None:
    sent = {"name": "X", **AGENT_FORM, "voice": "speechmatics:sarah", "language": "fr"}
    answer = signed_in(root).post(page("agent", "add"), sent)
    assert "speak English only" in answer.content.decode()


def test_the_default_agent_is_deleted_by_superusers_only(
    alice: User, root: User, agent_of: Make
) -> None:
    Agent.objects.filter(is_default=True).delete()
    default = agent_of(alice, "Front door", is_default=True)
    address = page("agent", "delete", default.pk)
    assert signed_in(alice).post(address, {"post": "yes"}).status_code == 403
    assert signed_in(root).post(address, {"post": "yes"}).status_code == 302
    assert not Agent.objects.filter(pk=default.pk).exists()


def test_nodes_are_for_superusers(alice: User, root: User) -> None:
    Node.objects.create(
        name="one",
        media_url="http://x",
        channel_layer="memory",
        capacity=1,
        started_at="2026-01-01T00:00Z",
        heartbeat_at="2026-01-01T00:00Z",
    )
    assert signed_in(alice).get(page("node", "changelist")).status_code == 403
    assert "one" in signed_in(root).get(page("node", "changelist")).content.decode()


def test_staff_without_the_right_see_no_calls(db: None, call_of: Callable[..., CallRecord]) -> None:
    carol = staff("carol")
    call = call_of(carol, "hers")
    client = signed_in(carol)
    assert client.get(page("callrecord", "changelist")).status_code == 403
    assert client.get(page("callrecord", "change", call.pk)).status_code == 403
