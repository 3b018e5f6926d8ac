from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import checks as django_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.utils import timezone

from callcenter import checks
from callcenter.env import Mistake
from sessions_app.models import Node

TWO_MISTAKES = [
    Mistake("SECRET_KEY", "nothing", "a long random text"),
    Mistake("LOST_SECONDS", "'soon'", "seconds from 0.3 to 600"),
]


def a_node(name: str, layer: str, *, heard_s_ago: float = 0) -> None:
    heard = timezone.now() - timedelta(seconds=heard_s_ago)
    Node.objects.create(
        name=name, channel_layer=layer, capacity=1, started_at=heard, heartbeat_at=heard
    )


def ids(found: list[django_checks.CheckMessage]) -> list[str | None]:
    return [message.id for message in found]


def test_the_tests_own_settings_are_right() -> None:
    assert checks.mistakes() == []
    checks.refuse_on_mistakes()


def test_each_mistake_is_an_error_with_a_lasting_id_and_a_hint(settings: Any) -> None:
    settings.SETTINGS_MISTAKES = TWO_MISTAKES

    found = checks.settings_are_right()

    assert ids(found) == ["callcenter.E001", "callcenter.E025"]
    assert "wanted a long random text" in found[0].msg
    assert "SECRET_KEY" in str(found[0].hint)
    assert all(isinstance(message, django_checks.Error) for message in found)


def test_commands_tell_all_mistakes_together(settings: Any) -> None:
    settings.SETTINGS_MISTAKES = TWO_MISTAKES

    with pytest.raises(SystemCheckError) as told:
        call_command("check")

    assert "SECRET_KEY: read nothing" in str(told.value)
    assert "LOST_SECONDS: read 'soon'" in str(told.value)


def test_a_server_refuses_and_tells_all_mistakes(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SETTINGS_MISTAKES = TWO_MISTAKES

    with pytest.raises(SystemExit) as ended:
        checks.refuse_on_mistakes()

    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "2 settings are wrong" in told
    assert "SECRET_KEY: read nothing, wanted a long random text" in told
    assert "LOST_SECONDS: read 'soon', wanted seconds from 0.3 to 600" in told


@pytest.mark.parametrize("key", ["/no/such/file.pem", "-----BEGIN PRIVATE KEY-----\nrubbish"])
def test_a_private_key_that_cannot_be_used_is_a_mistake_and_is_not_repeated(
    settings: Any, key: str
) -> None:
    settings.VONAGE_PRIVATE_KEY = key

    (mistake,) = checks.mistakes()

    assert mistake.name == "VONAGE_PRIVATE_KEY"
    assert mistake.wanted.startswith("the application's RSA private key")
    assert key not in str(mistake)


def test_https_without_trust_in_the_proxy_is_doubtful(settings: Any) -> None:
    settings.PUBLIC_URL = settings.MEDIA_URL_BASE = "https://calls.example.com"
    settings.TRUST_PROXY = False
    assert ids(checks.addresses_fit_together()) == ["callcenter.W001"]

    settings.TRUST_PROXY = True
    assert checks.addresses_fit_together() == []


def test_media_in_the_clear_is_doubtful(settings: Any) -> None:
    settings.PUBLIC_URL, settings.TRUST_PROXY = "https://calls.example.com", True
    settings.MEDIA_URL_BASE = "ws://media.example.com"

    assert ids(checks.addresses_fit_together()) == ["callcenter.W002"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:5004", ["callcenter.W004"]),
        ("http://10.0.0.7", ["callcenter.W004"]),
        ("http://localhost:5004", ["callcenter.W004"]),
        ("https://calls.example.com", []),
    ],
)
def test_a_public_address_that_is_not_public_is_doubtful(
    settings: Any, address: str, expected: list[str]
) -> None:
    settings.PUBLIC_URL, settings.SANDBOX = address, False

    assert ids(checks.ready_for_callers()) == expected


def test_the_sandbox_is_no_place_for_callers(settings: Any) -> None:
    settings.PUBLIC_URL, settings.SANDBOX = "https://calls.example.com", True

    assert ids(checks.ready_for_callers()) == ["callcenter.W003"]


@pytest.mark.django_db
class TestServersWithoutRedis:
    def test_a_second_one_is_told(self) -> None:
        a_node("one", "memory")
        a_node("two", "memory")

        (told,) = checks.servers_reach_each_other(databases=["default"])

        assert told.id == "callcenter.W005"
        assert "one, two" in told.msg

    def test_one_alone_is_fine_and_so_is_one_after_another(self) -> None:
        a_node("one", "memory")
        a_node("before", "memory", heard_s_ago=3600)

        assert checks.servers_reach_each_other(databases=["default"]) == []

    def test_several_on_redis_are_fine(self) -> None:
        a_node("one", "redis")
        a_node("two", "redis")

        assert checks.servers_reach_each_other(databases=["default"]) == []

    def test_before_the_first_migration_nothing_is_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks, "_tables", list)

        assert checks.servers_reach_each_other(databases=["default"]) == []

    def test_it_is_said_by_check_with_a_database(self) -> None:
        a_node("one", "memory")
        a_node("two", "memory")

        with pytest.raises(SystemCheckError, match=r"callcenter\.W005"):
            call_command("check", databases=["default"], fail_level="WARNING")


def test_commands_that_check_no_database_do_not_touch_it() -> None:
    # pytest-django fails any query of a test that did not ask for the database.
    assert checks.servers_reach_each_other(databases=None) == []
    call_command("check")
