from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError

from sessions_app.models import PhoneNumber
from tests.unit.commands.running import output_of

pytestmark = pytest.mark.django_db


def test_a_number_is_routed_to_an_agent_in_the_form_vonage_writes() -> None:
    told = output_of("number", "+44 20 7946 0000", "--agent=Receptionist", "--label=Front desk")

    assert told == "Created +442079460000, answered by 'Receptionist'.\n"
    row = PhoneNumber.objects.get()
    assert (row.number, row.agent.name, row.label) == ("442079460000", "Receptionist", "Front desk")


def test_it_can_be_changed_by_any_way_of_writing_it() -> None:
    User.objects.create_user("kim")
    output_of("agent", "Sales")
    output_of("number", "442079460000", "--agent=Receptionist")

    told = output_of("number", "+44 (20) 7946-0000", "--agent=Sales", "--owner=kim")

    assert told == "Changed +442079460000: agent, owner; answered by 'Sales'.\n"
    row = PhoneNumber.objects.get()
    assert row.owner is not None and row.owner.username == "kim"


def test_the_same_again_changes_nothing() -> None:
    output_of("number", "442079460000", "--agent=Receptionist")

    told = output_of("number", "442079460000", "--agent=Receptionist")

    assert told == "+442079460000 is unchanged, answered by 'Receptionist'.\n"
    assert PhoneNumber.objects.get().history.count() == 1


def test_an_owner_can_be_taken_away() -> None:
    User.objects.create_user("kim")
    output_of("number", "442079460000", "--agent=Receptionist", "--owner=kim")

    output_of("number", "442079460000", "--owner=")

    assert PhoneNumber.objects.get().owner is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reception", "--agent=Receptionist"], "'reception' is not a phone number; wanted"),
        (["442079460000"], "new, so --agent is wanted"),
        (["442079460000", "--agent=Nobody"], "--agent: read 'Nobody', wanted.*Receptionist"),
        (["442079460000", "--agent=Receptionist", "--owner=nobody"], "--owner: read 'nobody'"),
    ],
)
def test_what_is_wrong_is_told(arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        output_of("number", *arguments)
    assert not PhoneNumber.objects.exists()
