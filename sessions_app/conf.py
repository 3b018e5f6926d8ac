"""The settings as the product uses them: frozen, typed, built once from Django's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings

from sessions_app.core.limits import Limits


@dataclass(frozen=True, slots=True)
class VonageConf:
    api_key: str
    application_id: str
    private_key: str
    signature_secret: str
    api_url: str


@dataclass(frozen=True, slots=True)
class MediaConf:
    """Addresses and audio of the phone's side."""

    public_url: str
    socket_url: str
    rate_hz: int
    auth_required: bool

    @property
    def event_url(self) -> str:
        """Where the carrier tells what becomes of a leg, and asks what comes next."""
        return f"{self.public_url}/webhooks/vonage/event"


@dataclass(frozen=True, slots=True)
class ProviderConf:
    """Where the model and the voice are; in the sandbox the addresses come when it listens."""

    sandbox: bool
    openai_api_key: str
    openai_base_url: str
    realtime_model: str
    transcription_model: str
    summary_model: str
    speechmatics_api_key: str
    speechmatics_url: str


@dataclass(frozen=True, slots=True)
class Conf:
    node: str
    version: str
    channel_layer: str
    max_calls: int
    #: How many `connect` actions the carrier takes in a second from the account; 0: no limit.
    connects_per_s: int
    drain_s: float
    heartbeat_s: float
    lost_s: float
    #: What health shows its details for; the fleet's processes ask each other with it.
    health_token: str
    limits: Limits
    vonage: VonageConf
    media: MediaConf
    provider: ProviderConf
    #: Where prepared audio is kept, and whether what is missing is made.
    prepared_dir: Path
    prepare_audio: bool


def prepared_dir() -> Path:
    return Path(settings.MEDIA_ROOT) / "prepared"


def _socket_url(base: str) -> str:
    """An http address as the WebSocket address of the same place."""
    parts = urlsplit(base)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit(parts._replace(scheme=scheme))


def load() -> Conf:
    """Built from Django's settings, which have checked every value."""
    return Conf(
        node=settings.NODE_NAME,
        version=settings.VERSION,
        channel_layer="redis" if settings.REDIS_URL else "memory",
        max_calls=settings.MAX_CONCURRENT_CALLS,
        connects_per_s=settings.VONAGE_CONNECTS_PER_SECOND,
        drain_s=settings.DRAIN_SECONDS,
        heartbeat_s=settings.HEARTBEAT_SECONDS,
        lost_s=settings.LOST_SECONDS,
        health_token=settings.HEALTH_TOKEN,
        limits=Limits(max_s=settings.CALL_MAX_SECONDS, media_silence_s=settings.CALL_IDLE_SECONDS),
        vonage=VonageConf(
            api_key=settings.VONAGE_API_KEY,
            application_id=settings.VONAGE_APPLICATION_ID,
            private_key=settings.VONAGE_PRIVATE_KEY,
            signature_secret=settings.VONAGE_SIGNATURE_SECRET,
            api_url=settings.VONAGE_API_URL,
        ),
        media=MediaConf(
            public_url=settings.PUBLIC_URL,
            socket_url=_socket_url(settings.MEDIA_URL_BASE),
            rate_hz=settings.VONAGE_MEDIA_RATE,
            auth_required=settings.VONAGE_MEDIA_AUTH == "required",
        ),
        provider=ProviderConf(
            sandbox=settings.SANDBOX,
            openai_api_key=settings.OPENAI_API_KEY,
            openai_base_url=settings.OPENAI_BASE_URL,
            realtime_model=settings.OPENAI_REALTIME_MODEL,
            transcription_model=settings.OPENAI_TRANSCRIPTION_MODEL,
            summary_model=settings.OPENAI_SUMMARY_MODEL,
            speechmatics_api_key=settings.SPEECHMATICS_API_KEY,
            speechmatics_url=settings.SPEECHMATICS_TTS_URL,
        ),
        prepared_dir=prepared_dir(),
        prepare_audio=settings.PREPARE_AUDIO,
    )
