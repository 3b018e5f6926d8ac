"""What holds for every page: a strict content security policy, labels, and a way to the phone."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from sessions_app.models import Agent, CallRecord, PhoneNumber
from tests.unit.admin.conftest import signed_in, staff


class Strict(HTMLParser):
    """Collects what `script-src 'self'; style-src 'self'` would refuse, and dangling references."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []
        self.ids: list[str] = []
        self.wanted_ids: list[str] = []
        self._inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        for name, value in given.items():
            if name == "style" or name.startswith("on") or value.lower().startswith("javascript:"):
                self.refused.append(f"<{tag} {name}={value!r}>")
            if name in ("src", "href") and value.startswith(("http:", "https:", "//")):
                self.refused.append(f"<{tag} {name}={value!r}> is another host")
        if tag == "style" or (tag == "script" and "src" not in given):
            self.refused.append(self.get_starttag_text() or tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "label" and "for" in given:
            self.wanted_ids.append(given["for"])
        self.wanted_ids += given.get("aria-labelledby", "").split()


@pytest.fixture
def addresses(
    root: User,
    agent_of: Callable[..., Agent],
    number_of: Callable[..., PhoneNumber],
    call_of: Callable[..., CallRecord],
) -> list[str]:
    """Every page of ours, with rows in it."""
    agent = agent_of(root)
    number = number_of(root, agent, "442079460000")
    live, over = call_of(root, "live", agent=agent), call_of(root, "over", ended=True)
    live.turns.create(item_id="1", speaker="agent", text="Hello", from_ms=0)
    named: list[tuple[str, list[int]]] = [
        ("callrecord_changelist", []),
        ("callrecord_call", []),
        ("callrecord_change", [live.pk]),
        ("callrecord_change", [over.pk]),
        ("callrecord_hang_up", [live.pk]),
        ("callrecord_live", [live.pk]),
        ("callrecord_history", [live.pk]),
        ("agent_changelist", []),
        ("agent_add", []),
        ("agent_change", [agent.pk]),
        ("agent_history", [agent.pk]),
        ("agent_delete", [agent.pk]),
        ("phonenumber_changelist", []),
        ("phonenumber_change", [number.pk]),
        ("phonenumber_history", [number.pk]),
        ("node_changelist", []),
    ]
    pages = [reverse(f"admin:sessions_app_{name}", args=args) for name, args in named]
    return [reverse("admin:index"), reverse("admin:login"), *pages]


def test_no_page_has_anything_inline_or_from_elsewhere(root: User, addresses: list[str]) -> None:
    client = signed_in(root)
    for address in addresses:
        answer = client.get(address, follow=True)
        assert answer.status_code == 200, address
        strict = Strict()
        strict.feed(answer.content.decode())
        assert strict.refused == [], address
        assert len(strict.ids) == len(set(strict.ids)), address
        assert set(strict.wanted_ids) <= set(strict.ids), address
        if "/live/" not in address:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'self'" in policy and "unsafe" not in policy


def test_the_phone_is_one_press_away_from_everywhere(root: User, addresses: list[str]) -> None:
    phone = f'href="{reverse("admin:sessions_app_callrecord_call")}"'
    client = signed_in(root)
    assert phone in client.get(reverse("admin:index")).content.decode()
    assert phone in client.get(reverse("admin:sessions_app_agent_changelist")).content.decode()


def test_the_phone_offers_ones_own_agents_and_preselects_the_asked_or_the_default(
    alice: User, bob: User, root: User, agent_of: Callable[..., Agent]
) -> None:
    first, second, theirs = agent_of(alice, "A"), agent_of(alice, "B"), agent_of(bob, "Bob's")
    client = signed_in(alice)
    address = reverse("admin:sessions_app_callrecord_call")
    assert [agent.pk for agent in client.get(address).context["agents"]] == [first.pk, second.pk]
    assert client.get(address).context["chosen"] == first.pk
    assert client.get(address, {"agent": second.pk}).context["chosen"] == second.pk
    assert client.get(address, {"agent": theirs.pk}).context["chosen"] == first.pk
    default = Agent.objects.get(is_default=True)
    assert signed_in(root).get(address).context["chosen"] == default.pk


def test_the_phone_says_what_to_do_without_an_agent(db: None) -> None:
    address = reverse("admin:sessions_app_callrecord_call")
    assert "Ask a superuser" in signed_in(staff("carol")).get(address).content.decode()
    adder = signed_in(staff("dora", "add_agent"))
    assert reverse("admin:sessions_app_agent_add") in adder.get(address).content.decode()


def test_the_phone_is_for_staff(db: None) -> None:
    outsider = User.objects.create_user("outsider", password="secret")
    for address in ("callrecord_call", "callrecord_call_ticket"):
        answer = signed_in(outsider).post(reverse(f"admin:sessions_app_{address}"))
        assert answer.status_code == 302 and "login" in answer.headers["Location"]
