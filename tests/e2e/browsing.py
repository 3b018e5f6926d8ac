"""What the browser's tests share: a server on its sandbox, people who log in, Debian's Chromium."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.fakes.server import RunningServer

PASSWORD = "correct horse battery staple"
PHONE = "/admin/sessions_app/callrecord/call/"
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-sync",
    "--disable-features=Translate,OptimizationHints,MediaRouter", "--metrics-recording-only",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
_MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


def sandbox_server(**env: str) -> RunningServer:
    """The product as it runs without keys, with a superuser `admin`."""
    return RunningServer(
        env={"AI_PROVIDER": "sandbox", "DJANGO_SUPERUSER_PASSWORD": PASSWORD, **env}
    )


def add_admin(server: RunningServer, name: str = "admin") -> None:
    made = server.manage(
        "createsuperuser", "--no-input", "--username", name, "--email", "a@b.example"
    )
    assert made.returncode == 0, made.stderr


@contextmanager
def chromium(microphone: Path | None = None) -> Iterator[Browser]:
    """Debian's Chromium, whose microphone plays this WAV file; skips (or fails) without one."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("REQUIRE_SERVICES=1, and there is no chromium on the PATH")
        pytest.skip("there is no chromium on the PATH")
    sound = [f"--use-file-for-fake-audio-capture={microphone}"] if microphone else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*_QUIET, *_MICROPHONE, *sound]
        )
        try:
            yield browser
        finally:
            browser.close()


def logged_in(page: Page, server: RunningServer, name: str = "admin", then: str = PHONE) -> None:
    page.goto(f"{server.url}/admin/login/?next={then}")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{server.url}{then}")


class Staff:
    """Somebody logged in without a browser."""

    def __init__(self, server: RunningServer, name: str = "admin") -> None:
        self._server = server
        self._http = httpx.Client(base_url=server.url, trust_env=False, follow_redirects=True)
        self._http.get("/admin/login/")
        answer = self._http.post(
            "/admin/login/",
            data={"username": name, "password": PASSWORD, "next": PHONE, **self._csrf()},
            headers={"Referer": server.url},
        )
        if "sessionid" not in self._http.cookies:
            self._http.close()
            raise AssertionError(f"{name} could not log in: HTTP {answer.status_code}")

    def __enter__(self) -> Staff:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def cookies(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._http.cookies.items())

    def ticket(self, agent: int | None = None) -> str:
        """The path of a socket to this agent, or to the one that the page preselects."""
        if agent is None:
            page = self._http.get(PHONE).text
            chosen = re.search(r'<option value="(\d+)"[^>]* selected', page)
            assert chosen is not None
            agent = int(chosen.group(1))
        answer = self._http.post(f"{PHONE}ticket/", data={"agent": agent, **self._csrf()})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["path"])

    def _csrf(self) -> dict[str, str]:
        return {"csrfmiddlewaretoken": self._http.cookies["csrftoken"]}
