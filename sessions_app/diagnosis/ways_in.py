"""How callers come in: is our own address reachable, are webhooks guarded, is the clock right?"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import httpx
from django.conf import settings
from django.urls import reverse

from sessions_app.diagnosis.finding import Finding, fail, ok, warn
from sessions_app.diagnosis.web import Web, why
from sessions_app.telephony.vonage.signature import WINDOW_S

_CLOCK_OFF_S: Final = 20


async def server(web: Web) -> list[Finding]:
    """Whether a server of ours answers under PUBLIC_URL."""
    what, url = "PUBLIC_URL", settings.PUBLIC_URL
    try:
        answer = await web.http.get(f"{url}{reverse('health-live')}")
    except httpx.HTTPError as error:
        mend = "Start the server, or mend PUBLIC_URL, the proxy, DNS or the certificate."
        return [fail(what, f"{url} is not reached from here ({why(error)})", mend)]
    if answer.status_code != HTTPStatus.OK:
        seen = f"{url} answers {answer.status_code} for {reverse('health-live')}"
        mend = "See that PUBLIC_URL and the proxy lead to this service, and ALLOWED_HOSTS."
        return [fail(what, seen, mend)]
    return [ok(what, f"{url} answers (as seen from here, not from Vonage)")]


async def webhooks(web: Web) -> list[Finding]:
    """Whether a webhook that nobody signed is refused, as any forgery must be."""
    what = "webhooks"
    try:
        answer = await web.http.post(
            f"{settings.PUBLIC_URL}{reverse('vonage-answer')}", json={"uuid": "doctor"}
        )
    except httpx.HTTPError as error:
        return [fail(what, f"not reached ({why(error)})", "See PUBLIC_URL.")]
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return [ok(what, "one without a signature is refused with 401")]
    if answer.is_success:
        seen = f"one without a signature is answered with {answer.status_code}"
        return [fail(what, seen, "Something else answers there: see PUBLIC_URL and the proxy.")]
    return [
        fail(
            what,
            f"one without a signature gets {answer.status_code}, wanted 401",
            "See that the proxy passes POST on to this service, unchanged and not redirected.",
        )
    ]


def clock(web: Web) -> Finding:
    """How far our clock is from the others': signatures are good for five minutes."""
    if not web.ahead_s:
        unasked = "nobody who was asked tells the time"
        if settings.SANDBOX:
            return ok("clock", f"{unasked}; the sandbox has ours")
        return warn("clock", unasked, "See the findings above.")
    host, ahead_s = max(web.ahead_s.items(), key=lambda item: abs(item[1]))
    seen = f"{abs(ahead_s):.0f} s {'behind' if ahead_s > 0 else 'ahead of'} {host}"
    mend = "Let the machine keep its time by NTP."
    if abs(ahead_s) >= WINDOW_S:
        return fail("clock", seen, mend)
    return warn("clock", seen, mend) if abs(ahead_s) >= _CLOCK_OFF_S else ok("clock", seen)
