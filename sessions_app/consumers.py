"""The phone's media socket: Vonage's wire on one side, a live session on the other."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import AsyncConsumer

from sessions_app.bridge.manager import get_manager
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import TicketRefused
from sessions_app.core import events as ev
from sessions_app.frames import HAND_AUDIO
from sessions_app.logcontext import call_context
from sessions_app.telephony.vonage import wire
from sessions_app.telephony.vonage.signature import SignatureRefused, verify_handshake

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: RFC 6455 codes of an end that somebody wanted: normal, going away, none given.
_CLEAN_CODES = (1000, 1001, 1005)
#: A second socket waits for the first one's release before it is accepted.
_CLAIM_TIMEOUT_S = 4.5


class _PhoneSocket:
    """Implements the bridge's `MediaSocket` over an accepted ASGI WebSocket."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._closed = False

    async def send_audio(self, frame: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": frame})

    async def send_clear(self) -> None:
        await self._send({"type": "websocket.send", "text": wire.clear()})

    async def send_mark(self, mark_id: str) -> None:
        await self._send({"type": "websocket.send", "text": wire.notify(mark_id)})

    async def close(self) -> None:
        """A consumer that only returns leaves its socket open under Daphne; code 1000 is the one
        that Daphne and Vonage both know.
        """
        if not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": 1000})

    def gone(self) -> None:
        """The other side has closed; there is nothing left to send."""
        self._closed = True


def _in_its_context(take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """For who calls from elsewhere: what is logged belongs to the call of this task."""
    context = contextvars.copy_context()

    def taken(frame: bytes) -> None:
        context.run(take, frame)

    return taken


class MediaConsumer(AsyncConsumer):
    """Owns its receive loop: Channels' dispatch would make a task and a trip through one
    process-wide thread for every 20 ms frame, where one slow query stalls everybody's audio.
    """

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        try:
            session = await self._admit(scope)
        except (TicketRefused, SignatureRefused, TimeoutError) as refusal:
            logger.warning("a media socket was refused: %s", str(refusal) or "not in time")
            # Before accepting, a close is an HTTP 403, and Vonage reports the leg as failed.
            await send({"type": "websocket.close"})
            return
        with call_context(session.call_uuid):
            await self._serve(session, scope, receive, send)

    async def _admit(self, scope: Message) -> CallSession:
        """The session that the ticket opens. The signature is looked at first, so a handshake
        that is refused for it spends nothing.
        """
        conf = get_manager().conf
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        if authorization is not None or conf.media.auth_required:
            verify_handshake(
                authorization.decode("latin-1") if authorization is not None else None,
                secret=conf.vonage.signature_secret,
                api_key=conf.vonage.api_key,
                application_id=conf.vonage.application_id,
                now_s=time.time(),
            )
        ticket = scope["url_route"]["kwargs"]["ticket"]
        async with asyncio.timeout(_CLAIM_TIMEOUT_S):
            return await get_manager().reception.claim(ticket)

    async def _serve(
        self, session: CallSession, scope: Message, receive: Receive, send: Send
    ) -> None:
        phone = _PhoneSocket(send)
        hand_audio = (scope.get("extensions") or {}).get(HAND_AUDIO)
        try:
            await send({"type": "websocket.accept"})
            session.open_media(phone)
            if not session.over:
                if hand_audio is not None:
                    hand_audio["hand_to"](_in_its_context(session.take_frame))
                await self._listen(session, phone, receive)
        except BaseException:
            # Should this be cancelled, or fail, the call ends with it. Once the session has been
            # told that the socket is gone, it ends by itself, or awaits another one; Daphne would
            # cut off whoever waits for that here after ten seconds.
            await session.close(ev.EndReason.MEDIA_LOST)
            raise
        finally:
            if hand_audio is not None:
                hand_audio["hand_to"](None)
            # Where the session has not taken it, nobody else closes it.
            await phone.close()

    async def _listen(self, session: CallSession, phone: _PhoneSocket, receive: Receive) -> None:
        told: set[str] = set()
        while True:
            message = await receive()
            kind = message["type"]
            if kind == "websocket.receive":
                frame = message.get("bytes")
                if frame is not None:
                    session.take_frame(frame)
                else:
                    self._take_text(session, message.get("text") or "", told)
            elif kind == "websocket.disconnect":
                phone.gone()
                session.handle(ev.MediaClosed(clean=message.get("code") in _CLEAN_CODES))
                return

    def _take_text(self, session: CallSession, text: str, told: set[str]) -> None:
        """A text message; what cannot be used is told once per call, and ignored."""
        match wire.decode_text(text):
            case wire.Dtmf(digit=digit):
                session.handle(ev.DtmfPressed(digit))
            case wire.Notified() as notified:
                if mark_id := wire.mark_of(notified):
                    session.handle(ev.MarkPlayed(mark_id))
            case wire.MediaUpdate(active=active):
                session.handle(ev.MediaMuted(muted=not active))
            case wire.Connected(rate_hz=rate_hz):
                wanted = session.setup.phone_rate_hz
                if rate_hz != wanted:
                    session.handle(
                        ev.ProviderNotice("media_rate", f"read {rate_hz}, wanted {wanted}")
                    )
            case wire.Cleared():
                pass
            case wire.Unknown(event=event):
                self._tell(session, "unknown_media_event", event, told)
            case wire.Malformed(reason=reason):
                self._tell(session, "malformed_media_message", reason, told)

    def _tell(self, session: CallSession, kind: str, detail: str, told: set[str]) -> None:
        if kind not in told:
            told.add(kind)
            logger.warning("%s: %s", kind, detail[:100])
            session.handle(ev.ProviderNotice(kind, detail[:100]))
