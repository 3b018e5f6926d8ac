"""``POST /generate/{voice}``: text in, speech out, chunked and faster than it is heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sessions_app.sandbox.asgi import (
    CutError,
    Receive,
    Scope,
    Send,
    bearer,
    call_of,
    read_body,
    recorded,
    reply,
    reply_json,
    wish_of,
)
from sessions_app.sandbox.conf import Context, Recorded
from sessions_app.sandbox.faults import Fault, Phase
from sessions_app.sandbox.mind import sentences
from sessions_app.sandbox.voice import duration_ms, synthesise

VOICES: Final = ("sarah", "theo", "megan", "jack")
FORMATS: Final = ("wav_16000", "pcm_16000")
_RATE_HZ: Final = 16000
# Not a whole number of 20 ms frames and not even a whole number of samples: a client has to cope
# with both.
_CHUNK_BYTES: Final = 4095
_FIRST_BYTE_S: Final = 0.12
_TEXT_LIMIT: Final = 20_000
_SENTENCE_CHARS: Final = 2000

_Trouble = Callable[[], Awaitable[None]]


def _refusal(request: Recorded, voice: str, wanted_key: str) -> tuple[int, Any] | None:
    key = bearer(request)
    if not key or (wanted_key and key != wanted_key):
        return 401, {"code": 401, "error": "Unauthorized", "message": "Invalid API key."}
    if voice not in VOICES:
        return 404, {"code": 404, "error": "Not Found", "message": f"No such voice: {voice}."}
    if request.query.get("output_format", FORMATS[0]) not in FORMATS:
        return 422, _unprocessable("query", "output_format", f"expected one of {FORMATS}")
    return None


def _unprocessable(where: str, field: str, message: str) -> Any:
    return {"detail": [{"loc": [where, field], "msg": message, "type": "value_error"}]}


def _text(body: bytes) -> str | None:
    """The text of a well-formed body: an object with ``text`` and nothing else."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    if not isinstance(content, dict) or set(content) != {"text"}:
        return None
    text = content["text"]
    return text if isinstance(text, str) and 0 < len(text.strip()) <= _TEXT_LIMIT else None


async def generate(scope: Scope, receive: Receive, send: Send, context: Context) -> None:
    """Serves one synthesis."""
    body = await read_body(receive)
    request = recorded(scope, body)
    context.requests.append(request)
    fault = _fault(request, context)
    voice = request.path.rpartition("/")[2]
    if request.method != "POST":
        await reply_json(send, 405, {"code": 405, "error": "Method Not Allowed"})
        return
    if fault is Fault.TTS_REFUSED:
        await reply_json(send, 503, {"code": 503, "error": "Service Unavailable"})
        return
    if fault is Fault.TTS_HTML:
        page = b"<html><body><h1>We will be back soon</h1></body></html>"
        await reply(send, 200, page, "text/html; charset=utf-8")
        return
    refusal = _refusal(request, voice, context.keys.speechmatics)
    text = _text(body)
    if refusal is None and text is None:
        refusal = 422, _unprocessable("body", "text", "an object with a non-empty 'text' only")
    if refusal is not None or text is None:
        await reply_json(send, *(refusal or (422, {})))
        return
    is_wav = fault is Fault.TTS_WAV or request.query.get("output_format", FORMATS[0]) == "wav_16000"
    trouble = _trouble(fault, receive, context.tempo.stall_s)
    await asyncio.sleep(context.tempo.tts_slow_s if fault is Fault.TTS_SLOW else 0.0)
    await _stream(send, text, voice, is_wav, trouble, context.tempo.burst)


def _fault(request: Recorded, context: Context) -> Fault | None:
    """What strikes this request; the greeting is over once the call's model has heard a turn."""
    wish = wish_of(request)
    if wish is None or not wish.fault.is_of_speech:
        return None
    notes = context.strikes.of(call_of(request))
    phase = Phase.AGENT_SPEAKING if notes.caller_has_spoken else Phase.DURING_GREETING
    if wish.phase not in (None, phase) or not notes.take(wish):
        return None
    notes.was_cut = notes.was_cut or wish.cuts_speech
    return wish.fault


async def _stream(
    send: Send, text: str, voice: str, is_wav: bool, trouble: _Trouble | None, burst: float
) -> None:
    content_type = b"audio/wav" if is_wav else b"application/octet-stream"
    await asyncio.sleep(_FIRST_BYTE_S)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", content_type)],
        }
    )
    if is_wav:
        await _body(send, _wav_header())
    for sentence in sentences(text):
        pcm = await asyncio.to_thread(synthesise, sentence[:_SENTENCE_CHARS], _RATE_HZ, voice=voice)
        for at in range(0, len(pcm), _CHUNK_BYTES):
            if trouble is not None and at >= len(pcm) // 2:
                await trouble()
            chunk = pcm[at : at + _CHUNK_BYTES]
            await _body(send, chunk)
            await asyncio.sleep(duration_ms(chunk, _RATE_HZ) / 1000 / burst)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _trouble(fault: Fault | None, receive: Receive, stall_s: float) -> _Trouble | None:
    async def stall() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(stall_s):
                while (await receive())["type"] != "http.disconnect":
                    pass
        raise CutError

    async def cut() -> None:
        raise CutError

    return {Fault.TTS_STALLS: stall, Fault.TTS_CUT: cut}.get(fault) if fault else None


async def _body(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _wav_header() -> bytes:
    """A WAV header whose sizes are placeholders, since a stream does not know its length."""
    unknown = 0xFFFFFFFF
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE_HZ, _RATE_HZ * 2, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE")
    return head + fmt + struct.pack("<4sI", b"data", unknown)
