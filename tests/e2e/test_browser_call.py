"""The page "Call the agent" in a real browser, against a real server on its sandbox."""

from __future__ import annotations

import re
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from sessions_app.sandbox.samples import BY_KEY, TAKEN_UP
from tests.e2e.browsing import add_admin, chromium, logged_in, sandbox_server
from tests.fakes.server import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

#: Generous: two noisy cores share a browser, a server and a sandbox.
SOON_MS = 30_000
HOURS = BY_KEY["hours"]
GREETING = "thank you for calling"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with sandbox_server() as running:
        add_admin(running)
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    silence = tmp_path_factory.mktemp("microphone") / "silence.wav"
    _write_wav(silence, bytes(16_000 * 2 * 2))
    with chromium(silence) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    """A logged-in page that fails its test on any error of a script or of the content policy."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(SOON_MS)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    logged_in(opened, server)
    yield opened
    context.close()
    assert [text for text in wrong if "ERR_CONNECTION" not in text] == []


def _write_wav(path: Path, pcm: bytes) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(pcm)


def call(page: Page) -> None:
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#phone-state")).to_have_text("Connected", timeout=SOON_MS)


def watching(page: Page) -> Page:
    """The page of the call that goes on, as a supervisor has it open."""
    address = page.get_by_role("link", name="This call's page").get_attribute("href")
    watcher = page.context.new_page()
    watcher.goto(str(address and page.url.split("/admin/")[0] + address))
    return watcher


def wait_for_sound(page: Page, side: str) -> None:
    """Until the level meter of this side moves."""
    meter = page.locator(f"#phone-level-{side}")
    for _ in range(SOON_MS // 50):
        if meter.evaluate("meter => meter.value") > 0.3:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"no sound of {side} within {SOON_MS} ms")


def wait_for_words(page: Page, speaker: str, words: str) -> None:
    line = page.locator(f".call-turn-{speaker}", has_text=words).first
    expect(line).to_be_visible(timeout=SOON_MS)


def test_one_press_a_conversation_and_silence_after_hanging_up(
    page: Page, server: RunningServer
) -> None:
    frames: list[bytes] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framereceived", lambda sent: frames.append(sent) if isinstance(sent, bytes) else None
        ),
    )
    call(page)
    wait_for_sound(page, "agent")
    wait_for_words(page, "agent", GREETING)
    expect(page.locator("#phone-time")).to_have_text(re.compile(r"^0:\d\d$"))

    page.get_by_role("button", name=HOURS.text).click()
    wait_for_sound(page, "you")
    wait_for_words(page, "caller", HOURS.text)
    wait_for_words(page, "agent", HOURS.reply[:30])

    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#phone-state")).to_have_text("Ended: you hung up.", timeout=SOON_MS)
    expect(page.get_by_role("button", name="Call again")).to_be_focused()
    assert all(len(frame) == 641 for frame in frames)
    heard = len(frames)
    page.wait_for_timeout(500)
    assert len(frames) == heard
    assert page.locator("#phone-level-agent").evaluate("meter => meter.value") == 0
    expect(page.get_by_text("Speaking", exact=True)).to_have_count(0)

    page.get_by_role("link", name="This call's page").click()
    expect(page.locator(".call-header")).to_contain_text("caller hung up", timeout=SOON_MS)
    expect(page.locator("#call-turns")).to_contain_text(HOURS.text)
    expect(page.locator("#call-facts")).to_contain_text("admin")
    assert server.active_count() == 0


def test_without_a_microphone_typed_words_are_said_with_the_keyboard_alone(page: Page) -> None:
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('refused'))"
    )
    page.reload()
    page.get_by_role("button", name="Call", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#phone-mic-hint")).to_contain_text("No microphone", timeout=SOON_MS)
    expect(page.locator("#phone-state")).to_have_text("Connected", timeout=SOON_MS)
    expect(page.get_by_role("button", name="Mute microphone")).to_be_disabled()
    page.get_by_label("Your words").focus()
    page.keyboard.type(HOURS.text)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your words")).to_have_value("")
    expect(page.get_by_label("Your words")).to_be_focused()
    wait_for_words(page, "caller", HOURS.text)
    page.get_by_role("button", name="Hang up").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#phone-state")).to_have_text("Ended: you hung up.", timeout=SOON_MS)


def test_an_agent_that_says_goodbye_ends_the_call_in_words(page: Page) -> None:
    call(page)
    wait_for_words(page, "agent", GREETING)
    page.get_by_role("button", name=BY_KEY["goodbye"].text).click()
    ended = re.compile("Ended: the agent said goodbye")
    expect(page.locator("#phone-state")).to_have_text(ended, timeout=2 * SOON_MS)
    expect(page.get_by_role("button", name="Hang up")).to_be_disabled()


def test_a_supervisor_sees_the_live_call_and_hangs_it_up(page: Page) -> None:
    call(page)
    wait_for_words(page, "agent", GREETING)
    watcher = watching(page)
    expect(watcher.locator(".call-header")).to_contain_text("live")
    page.get_by_role("button", name=HOURS.text).click()
    # Nobody reloads: the page follows the call by itself.
    expect(watcher.locator("#call-turns")).to_contain_text(HOURS.text, timeout=SOON_MS)
    expect(watcher.locator("#call-fresh")).to_have_text("Live: this page follows the call.")
    watcher.get_by_role("link", name="Hang up…").click()
    watcher.get_by_role("button", name="Hang up").click()
    expect(watcher.locator("#call-commands")).to_contain_text("done", timeout=SOON_MS)
    expect(watcher.locator(".call-header")).to_contain_text("ended")
    expect(watcher.get_by_role("link", name="Hang up…")).to_have_count(0)
    ended = "Ended: a supervisor hung up."
    expect(page.locator("#phone-state")).to_have_text(ended, timeout=SOON_MS)


def test_a_whisper_is_taken_up_by_the_agent_and_gone_with_the_call(page: Page) -> None:
    call(page)
    wait_for_words(page, "agent", GREETING)
    watcher = watching(page)
    # The greeting is over: the agent can take it up at once.
    expect(page.get_by_text("Speaking", exact=True)).to_have_count(0, timeout=SOON_MS)
    whisper = watcher.get_by_label("Whisper to the agent")
    whisper.fill("Offer a refund.")
    whisper.press("Enter")
    asked = watcher.locator("#call-commands")
    expect(asked).to_contain_text("Offer a refund.", timeout=SOON_MS)
    expect(asked).to_contain_text("the agent was told", timeout=SOON_MS)
    wait_for_words(page, "agent", TAKEN_UP.format("Offer a refund."))
    expect(watcher.locator("#call-turns")).to_contain_text("Before I forget", timeout=SOON_MS)
    page.get_by_role("button", name="Hang up").click()
    expect(watcher.locator(".call-header")).to_contain_text("ended", timeout=SOON_MS)
    expect(watcher.get_by_label("Whisper to the agent")).to_have_count(0)
    expect(page.get_by_text("supervisor")).to_have_count(0)


def test_the_chosen_agent_answers(page: Page, server: RunningServer) -> None:
    words = ("--greeting", "The bakery, good morning.", "--instructions", "Sell bread.")
    made = server.manage("agent", "Bakery", *words, "--owner", "admin")
    assert made.returncode == 0, made.stderr
    page.reload()
    page.get_by_label("Agent").first.select_option("Bakery")
    call(page)
    wait_for_words(page, "agent", "The bakery, good morning.")
    expect(page.locator(".call-turn-agent strong").first).to_have_text("Bakery")
