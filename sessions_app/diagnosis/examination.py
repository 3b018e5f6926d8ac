"""All findings together."""

from __future__ import annotations

import asyncio

from sessions_app.diagnosis import local, prepared, suppliers, ways_in
from sessions_app.diagnosis.finding import Finding, Level
from sessions_app.diagnosis.suppliers import Needs
from sessions_app.diagnosis.web import Web


def examine() -> list[Finding]:
    """Every finding; takes some ten seconds at most, whatever is away."""
    findings = local.settings_are_right()
    database = local.database()
    findings.append(database)
    if database.level is not Level.FAIL:
        findings += local.rows()
    findings += [local.redis(), local.disk(), *prepared.audio()]
    return findings + asyncio.run(_outside(Needs.of_agents()))


async def _outside(needs: Needs) -> list[Finding]:
    async with Web() as web:
        found = await asyncio.gather(
            suppliers.openai(web, needs),
            suppliers.speechmatics(web, needs),
            suppliers.vonage(web),
            ways_in.server(web),
            ways_in.webhooks(web),
        )
        return [*(finding for some in found for finding in some), ways_in.clock(web)]
