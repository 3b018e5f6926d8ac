"""Builds what a call uses of others, from the settings: the model, the voice, the carrier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sessions_app.conf import Conf, ProviderConf
from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.core.phrases import Phrase
from sessions_app.logcontext import pseudonym
from sessions_app.prepared import mouths
from sessions_app.prepared.mouths import Say
from sessions_app.prepared.sound import Unfit
from sessions_app.prepared.wording import Wanted
from sessions_app.providers import registry
from sessions_app.providers.base import Provider, ProviderSetup, Voice
from sessions_app.providers.openai.client import OpenAIConf, OpenAIProvider
from sessions_app.providers.speechmatics.tts import SpeechmaticsConf, SpeechmaticsVoice
from sessions_app.providers.tls import tls_context
from sessions_app.rehearsal import Rehearsal
from sessions_app.sandbox.server import Sandbox
from sessions_app.telephony.vonage import ncco
from sessions_app.telephony.vonage.client import (
    DEFAULT_API_URL,
    CallInfo,
    Outcome,
    VonageCalls,
    VonageError,
    load_private_key,
)

FAULT_HEADER = "X-Sandbox-Fault"
CALL_HEADER = "X-Sandbox-Call"
#: The end user of what is said in no call.
_NOBODY = "prepared audio"

# httpx would import these at its first request: a quarter of a second on the event loop, in which
# every caller hears nothing.
for _later in ("anyio.abc", "anyio.streams.tls", "anyio._backends._asyncio"):
    import_module(_later)


class Suppliers:
    """Factories for one process; nothing of a call is kept here."""

    def __init__(
        self,
        provider: ProviderConf,
        vonage: VonageCalls,
        enquiries: VonageCalls,
        http: httpx.AsyncClient,
        sandbox_control_url: str = "",
    ) -> None:
        self._conf = provider
        self._vonage = vonage
        self._enquiries = enquiries
        #: For questions to other processes of ours.
        self.http = http
        #: Where simulated callers register their legs; empty without the sandbox.
        self.sandbox_control_url = sandbox_control_url

    def _fault(self, call_uuid: str, fault: str) -> dict[str, str]:
        """Only the sandbox is ever told of a wanted fault, and of the call it is meant for."""
        if not fault or not self._conf.sandbox:
            return {}
        return {FAULT_HEADER: fault, CALL_HEADER: call_uuid}

    def provider(
        self, call_uuid: str, caller: str, agent: AgentProfile, fault: str
    ) -> Callable[[], Provider]:
        end_user = pseudonym(caller)
        setup = ProviderSetup(
            call_uuid=call_uuid,
            agent=agent,
            text_only=registry.needs_external_voice(agent.voice_kind),
            headers={"OpenAI-Safety-Identifier": end_user, **self._fault(call_uuid, fault)},
        )
        openai = self._openai()
        return lambda: OpenAIProvider(setup, openai)

    def _openai(self) -> OpenAIConf:
        return OpenAIConf(
            api_key=self._conf.openai_api_key,
            base_url=self._conf.openai_base_url,
            realtime_model=self._conf.realtime_model,
            transcription_model=self._conf.transcription_model,
        )

    def voice(self, call_uuid: str, agent: AgentProfile, fault: str) -> Callable[[], Voice] | None:
        if not registry.needs_external_voice(agent.voice_kind):
            return None
        return self._speechmatics(agent.voice, call_uuid, fault)

    def spare_voice(
        self, call_uuid: str, agent: AgentProfile, fault: str
    ) -> Callable[[], Voice] | None:
        """For an agent whose model speaks itself, where there is one that speaks its language."""
        speaks = registry.speaks(VoiceKind.SPEECHMATICS, agent.language)
        able = speaks and self._conf.speechmatics_api_key
        if registry.needs_external_voice(agent.voice_kind) or not able:
            return None
        return self._speechmatics(registry.SPEECHMATICS_VOICES[0], call_uuid, fault)

    def _speechmatics(self, voice: str, call_uuid: str, fault: str) -> Callable[[], Voice]:
        conf = SpeechmaticsConf(
            api_key=self._conf.speechmatics_api_key, url=self._conf.speechmatics_url
        )
        headers = self._fault(call_uuid, fault)
        return lambda: SpeechmaticsVoice(conf, voice, headers=headers)

    def mouth(self, agent: AgentProfile) -> AbstractAsyncContextManager[Say]:
        """The agent's own voice, to prepare audio with: no call, no caller, no fault."""
        if (voice := self.voice("", agent, "")) is not None:
            return mouths.of_voice(voice)
        end_user = {"OpenAI-Safety-Identifier": pseudonym(_NOBODY)}
        setup = ProviderSetup(call_uuid="", agent=agent, text_only=False, headers=end_user)
        # Who prepares tries again by itself, later than a call could.
        openai = replace(self._openai(), attempts=1)
        return mouths.of_model(lambda: OpenAIProvider(setup, openai))

    async def look(self) -> None:
        """Have the model say a word: only that shows that it serves. Raises CallError."""
        it = AgentProfile()
        word = Wanted(Phrase.GREETING, "Hello.", it.voice_kind, it.voice, it.language)
        async with self.mouth(it) as say:
            with suppress(Unfit):  # it serves, whatever it says
                await say(word)

    def hang_up(self, call_uuid: str, region_url: str, fault: str) -> Callable[[], Awaitable[None]]:
        async def hang_up() -> None:
            await self._vonage.hang_up(
                call_uuid, region_url or None, extra_headers=self._fault(call_uuid, fault)
            )

        return hang_up

    def transfer(
        self,
        call_uuid: str,
        region_url: str,
        fault: str,
        make_flow: Callable[[], Awaitable[ncco.Ncco]],
    ) -> Callable[[], Awaitable[None]]:
        """Replaces what the caller's leg is doing by the flow that is made then. Raises if the leg
        is gone.
        """

        async def transfer() -> None:
            flow = await make_flow()
            outcome = await self._vonage.transfer(
                call_uuid, flow, region_url or None, extra_headers=self._fault(call_uuid, fault)
            )
            if outcome is Outcome.LEG_GONE:
                raise VonageError("the leg is gone", retryable=False)

        return transfer

    async def leg(self, call_uuid: str, region_url: str) -> CallInfo | None:
        """What the carrier knows of a caller's leg, asked once; None: nothing. VonageError."""
        return await self._enquiries.get_call(call_uuid, region_url or None)


def _made_up_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@asynccontextmanager
async def open_suppliers(conf: Conf) -> AsyncIterator[Suppliers]:
    """The carrier's HTTP client, and in the sandbox the stand-ins, for as long as the process."""
    key = conf.vonage.private_key
    pem = load_private_key(key) if key else await asyncio.to_thread(_made_up_key)
    async with AsyncExitStack() as stack:
        provider, api_url, control_url = conf.provider, conf.vonage.api_url, ""
        if conf.provider.sandbox:
            rehearsal = stack.enter_context(Rehearsal(asyncio.get_running_loop()))
            sandbox = await asyncio.to_thread(Sandbox, own_side=rehearsal.strike)
            stack.push_async_callback(asyncio.to_thread, sandbox.close)
            provider = replace(
                provider,
                openai_api_key=provider.openai_api_key or "sandbox",
                openai_base_url=sandbox.openai_base_url,
                speechmatics_api_key=provider.speechmatics_api_key or "sandbox",
                speechmatics_url=sandbox.speechmatics_tts_url,
            )
            control_url = sandbox.control_url
            if api_url == DEFAULT_API_URL:
                # Nothing of the sandbox may ever reach the real carrier.
                api_url = sandbox.vonage_api_url
        # A hang-up now and then is not worth an idle connection that outlives its call.
        limits = httpx.Limits(max_keepalive_connections=0)
        http = await stack.enter_async_context(
            httpx.AsyncClient(verify=tls_context(), trust_env=False, limits=limits)
        )
        calls = partial(
            VonageCalls,
            http,
            application_id=conf.vonage.application_id,
            private_key=pem,
            api_url=api_url,
        )
        # Who only asks how a leg is doing asks again later by himself.
        yield Suppliers(provider, calls(), calls(attempts=1), http, control_url)
