"""A microphone's sound goes the whole way: browser, socket, phone network, service, transcript."""

from __future__ import annotations

import re
import wave
from pathlib import Path

import pytest
from playwright.sync_api import expect

from sessions_app.sandbox.samples import BY_KEY
from sessions_app.sandbox.voice import CALLER, synthesise
from tests.e2e.browsing import add_admin, chromium, logged_in, sandbox_server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

RATE_HZ = 16_000
SOON_MS = 40_000


def spoken(path: Path) -> Path:
    """A microphone before which somebody is silent, says a sentence, and is silent again."""
    silence = bytes(RATE_HZ * 2 * 4)
    sentence = synthesise(BY_KEY["order"].text, RATE_HZ, voice=CALLER)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(silence + sentence + silence)
    return path


def test_what_is_said_into_the_microphone_is_heard_and_muting_ends_that(tmp_path: Path) -> None:
    with sandbox_server() as server, chromium(spoken(tmp_path / "said.wav")) as browser:
        add_admin(server)
        page = browser.new_page()
        logged_in(page, server)
        page.get_by_role("button", name="Call", exact=True).click()
        # Recognised, or at least as so many seconds of speech: browsers polish what they hear.
        said = page.locator(".call-turn-caller > p", has_text=re.compile("order|s of speech"))
        expect(said.first).to_be_visible(timeout=SOON_MS)
        page.get_by_role("button", name="Mute microphone").click()
        expect(page.get_by_role("button", name="Unmute microphone")).to_be_visible()
        page.wait_for_timeout(500)
        assert page.locator("#phone-level-you").evaluate("meter => meter.value") == 0
        page.get_by_role("button", name="Hang up").click()
        expect(page.locator("#phone-state")).to_have_text("Ended: you hung up.", timeout=SOON_MS)
        assert page.get_by_role("button", name="Mute microphone").is_disabled()
