"""Daphne's short way for audio; in a process of its own, since to import it changes the loop."""

from __future__ import annotations

import subprocess
import sys

STORY = """
import asyncio
from websockets.frames import Frame, Opcode
from callcenter.server import DrainingServer, MediaSocketProtocol
from sessions_app.frames import HAND_AUDIO

audio = [bytes([number]) * 640 for number in range(6)]
phone = MediaSocketProtocol()
phone.state, phone.muted, phone.client_addr = phone.STATE_OPEN, False, None
phone.current_frame, phone.data, phone.inside_message = None, b"", False
phone.application_queue = queue = asyncio.Queue()
heard = []

def say(*numbers):
    frames = [Frame(Opcode.BINARY, audio[n]).serialize(mask=True) for n in numbers]
    phone.dataReceived(b"".join(frames))

scope = {}
async def application(scope, receive, send):
    pass

server = DrainingServer(application, endpoints=["tcp:0"])
server.connections = {phone: {}}

async def connected():
    server.create_application(phone, scope)

asyncio.run(connected())
hand_to = scope["extensions"][HAND_AUDIO]["hand_to"]

say(0)
hand_to(heard.append)
say(1)
assert not heard
assert [queue.get_nowait()["bytes"] for _ in range(2)] == audio[:2]
phone.last_ping = 0
say(2, 3)
assert heard == audio[2:4] and queue.empty() and phone.last_ping > 0
hand_to(None)
say(4)
assert queue.get_nowait()["bytes"] == audio[4] and heard == audio[2:4]
print("told")
"""


def test_audio_is_handed_over_where_it_comes_in_and_overtakes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "told\n", done.stderr
