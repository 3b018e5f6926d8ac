"""Which voices a call is given, by its agent and by the keys there are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from sessions_app.bridge.suppliers import Suppliers
from sessions_app.conf import ProviderConf
from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.telephony.vonage.client import VonageCalls

CONF = ProviderConf(
    sandbox=False,
    openai_api_key="sk-1",
    openai_base_url="https://api.example.com/v1",
    realtime_model="gpt-realtime",
    transcription_model="gpt-4o-transcribe",
    summary_model="gpt-4o-mini",
    speechmatics_api_key="sm-1",
    speechmatics_url="https://tts.example.com/generate",
)
OWN = AgentProfile(language="en-GB")
OTHER = AgentProfile(language="en-GB", voice_kind=VoiceKind.SPEECHMATICS, voice="theo")


def voices_of(agent: AgentProfile, **conf: Any) -> tuple[bool, bool]:
    """Whether the call has another service's voice, and whether it has one to spare."""
    calls = cast(VonageCalls, None)  # no leg is touched here

    async def scenario() -> tuple[bool, bool]:
        async with httpx.AsyncClient() as http:
            suppliers = Suppliers(replace(CONF, **conf), calls, calls, http)
            voice = suppliers.voice("uuid-1", agent, "")
            spare = suppliers.spare_voice("uuid-1", agent, "")
            for make in (voice, spare):
                if make is not None:
                    await make().close()
            return voice is not None, spare is not None

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("agent", "conf", "wanted"),
    [
        (OWN, {}, (False, True)),
        (OTHER, {}, (True, False)),
        (OWN, {"speechmatics_api_key": ""}, (False, False)),
        (replace(OWN, language="de-DE"), {}, (False, False)),
    ],
    ids=["own voice", "other voice", "no key", "not English"],
)
def test_a_voice_is_spare_where_it_could_speak_for_a_model_that_speaks_itself(
    agent: AgentProfile, conf: dict[str, str], wanted: tuple[bool, bool]
) -> None:
    assert voices_of(agent, **conf) == wanted
