"""When it goes wrong the page says so in words: no free line, a refused ticket, a lost server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browsing import add_admin, chromium, logged_in, sandbox_server
from tests.fakes.server import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SOON_MS = 30_000
FOLLOWS = "Live: this page follows the call."


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def small_server() -> Iterator[RunningServer]:
    with sandbox_server(MAX_CONCURRENT_CALLS="1") as running:
        add_admin(running)
        yield running


def test_a_busy_house_and_then_a_lost_one_are_told_in_words(
    chrome: Browser, small_server: RunningServer
) -> None:
    context = chrome.new_context()
    first, second = context.new_page(), context.new_page()
    logged_in(first, small_server)
    second.goto(first.url)

    first.get_by_role("button", name="Call", exact=True).click()
    expect(first.locator("#phone-state")).to_have_text("Connected", timeout=SOON_MS)
    second.get_by_role("button", name="Call", exact=True).click()
    expect(second.locator(".call-turn-announced")).not_to_be_empty(timeout=SOON_MS)
    expect(second.locator("#phone-state")).to_contain_text("Ended:", timeout=SOON_MS)
    expect(second.get_by_role("button", name="Call again")).to_be_enabled()

    watcher = context.new_page()
    link = first.get_by_role("link", name="This call's page").get_attribute("href")
    watcher.goto(f"{small_server.url}{link}")
    expect(watcher.locator("#call-fresh")).to_have_text(FOLLOWS, timeout=SOON_MS)

    small_server.kill()
    expect(first.locator("#phone-state")).to_have_text("The connection was lost.", timeout=SOON_MS)
    again = first.get_by_role("button", name="Call again")
    again.click()
    expect(first.locator("#phone-problem")).to_have_text(
        "The service does not answer.", timeout=SOON_MS
    )
    expect(again).to_be_enabled()

    stale = watcher.locator("#call-fresh")
    watcher.bring_to_front()
    expect(stale).to_contain_text("Not updated since", timeout=SOON_MS)

    small_server.restart()
    expect(stale).not_to_contain_text("Not updated since", timeout=SOON_MS)
    first.bring_to_front()
    again.click()
    expect(first.locator("#phone-state")).to_have_text("Connected", timeout=SOON_MS)
    context.clear_cookies()
    first.get_by_role("button", name="Hang up").click()
    expect(first.locator("#phone-state")).to_have_text("Ended: you hung up.", timeout=SOON_MS)
    again.click()
    expect(first.locator("#phone-problem")).to_contain_text("logged out", timeout=SOON_MS)
