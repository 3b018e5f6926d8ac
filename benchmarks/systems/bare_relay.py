"""The floor: what any Python program pays that carries these frames, and nothing else.

`websockets` on both sides, uvloop, soxr. One call is two sockets and two coroutines. It resamples,
cuts the agent's audio into frames of 20 ms, and on `speech_started` clears the phone and cuts the
item short.

What it lacks: it answers no webhook and checks nothing; it writes as fast as the model speaks and
does not know what was heard; no row, no transcript, no log, no guard, no limits, no deadlines, no
reconnection, no second voice; a fault of anybody ends the call in silence.

    python benchmarks/systems/bare_relay.py --port 6001 --openai-url http://127.0.0.1:6002/v1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from base64 import b64decode, b64encode

import numpy as np
import soxr
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

FRAME_BYTES = 640
_SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "server_vad"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"},
    },
}


async def _to_model(phone: ServerConnection, model: ClientConnection) -> None:
    resampler = soxr.ResampleStream(16000, 24000, 1, dtype="int16", quality="QQ")
    async for message in phone:
        if isinstance(message, bytes):
            pcm = resampler.resample_chunk(np.frombuffer(message, dtype="<i2")).tobytes()
            audio = b64encode(pcm).decode()
            await model.send('{"type":"input_audio_buffer.append","audio":"' + audio + '"}')


async def _to_phone(model: ClientConnection, phone: ServerConnection) -> None:
    resampler = soxr.ResampleStream(24000, 16000, 1, dtype="int16", quality="LQ")
    rest, item_id = b"", ""
    async for message in model:
        event = json.loads(message)
        match event["type"]:
            case "response.output_audio.delta":
                item_id = event["item_id"]
                pcm = np.frombuffer(b64decode(event["delta"]), dtype="<i2")
                data = rest + resampler.resample_chunk(pcm).tobytes()
                whole = len(data) // FRAME_BYTES * FRAME_BYTES
                for at in range(0, whole, FRAME_BYTES):
                    await phone.send(data[at : at + FRAME_BYTES])
                rest = data[whole:]
            case "input_audio_buffer.speech_started" if item_id:
                rest = b""
                await phone.send('{"action":"clear"}')
                cut = {"type": "conversation.item.truncate", "item_id": item_id}
                await model.send(json.dumps({**cut, "content_index": 0, "audio_end_ms": 0}))


async def main(port: int, openai_url: str) -> None:
    url = openai_url.replace("http", "ws", 1) + "/realtime?model=gpt-realtime"

    async def call(phone: ServerConnection) -> None:
        async with connect(
            url, additional_headers={"Authorization": "Bearer bench"}, compression=None, proxy=None
        ) as model:
            await model.recv()  # session.created
            await model.send(json.dumps({"type": "session.update", "session": _SESSION}))
            await model.send(json.dumps({"type": "response.create"}))
            tasks = [
                asyncio.create_task(_to_model(phone, model)),
                asyncio.create_task(_to_phone(model, phone)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionClosed):
                    raise outcome

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(call, "127.0.0.1", port, compression=None):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--openai-url", required=True)
    parser.add_argument("--greeting", default="", help="not spoken: the model greets by itself")
    asked = parser.parse_args()
    uvloop.run(main(asked.port, asked.openai_url))
