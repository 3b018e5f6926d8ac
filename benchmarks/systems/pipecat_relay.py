"""A call centre as a user of pipecat would build it: the peer that the product is compared with.

It is put together from pipecat's own examples (`vonage-audio-bot` for the phone's side and the
server, `realtime/realtime-openai` for the model's) and its telephony guide (the pipeline runs at
the rate of the wire, so that audio is resampled once); everything that those leave open is at
pipecat's defaults. It runs alone, on the requirements in `benchmarks/requirements-pipecat.txt`:

    python benchmarks/systems/pipecat_relay.py --port 5005 \
        --openai-url http://127.0.0.1:5006/v1 --greeting "Good day, how can I help you?"

`ready` is printed once `ws://127.0.0.1:<port>/media/<call>` can be dialled; SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker, ProcessorUnusablePolicy
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.serializers.vonage import VonageFrameSerializer
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    InputAudioNoiseReduction,
    InputAudioTranscription,
    SessionProperties,
    TurnDetection,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

HOST = "127.0.0.1"
MODEL = "gpt-realtime"
API_KEY = "bench"
VONAGE_RATE = 16_000
#: 20 ms of s16le mono; Vonage takes no other size.
VONAGE_FRAME_BYTES = 640
INSTRUCTIONS = "You are the phone agent of a shop. Answer in one or two short sentences."


async def run_call(websocket: WebSocket, realtime_url: str, greeting: str) -> None:
    """One call: from the accepted socket of the phone until either side has gone."""
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            add_wav_header=False,
            fixed_audio_packet_size=VONAGE_FRAME_BYTES,
            serializer=VonageFrameSerializer(
                VonageFrameSerializer.InputParams(vonage_sample_rate=VONAGE_RATE)
            ),
        ),
    )
    llm = OpenAIRealtimeLLMService(
        api_key=API_KEY,
        base_url=realtime_url,
        settings=OpenAIRealtimeLLMService.Settings(
            model=MODEL,
            system_instruction=INSTRUCTIONS,
            session_properties=SessionProperties(
                audio=AudioConfiguration(
                    input=AudioInput(
                        transcription=InputAudioTranscription(),
                        turn_detection=TurnDetection(),
                        noise_reduction=InputAudioNoiseReduction(type="near_field"),
                    )
                ),
            ),
        ),
    )
    context = LLMContext([{"role": "developer", "content": f"Say exactly: {greeting}"}])
    user_aggregator, assistant_aggregator = LLMContextAggregatorPair(
        context, realtime_service_mode=True
    )
    worker = PipelineWorker(
        Pipeline(
            [transport.input(), user_aggregator, llm, transport.output(), assistant_aggregator]
        ),
        params=PipelineParams(
            audio_in_sample_rate=VONAGE_RATE,
            audio_out_sample_rate=VONAGE_RATE,
            enable_metrics=True,
            enable_usage_metrics=True,
        ),
        processor_unusable_policy=ProcessorUnusablePolicy.END,
    )

    @transport.event_handler("on_client_connected")
    async def greet(_transport: FastAPIWebsocketTransport, _client: WebSocket) -> None:
        await worker.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_client_disconnected")
    async def hang_up(_transport: FastAPIWebsocketTransport, _client: WebSocket) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def build_app(realtime_url: str, greeting: str) -> FastAPI:
    """The server that Vonage dials."""
    app = FastAPI()

    @app.websocket("/media/{call:path}")
    async def media(websocket: WebSocket) -> None:
        await websocket.accept()
        await run_call(websocket, realtime_url, greeting)

    return app


class Server(uvicorn.Server):
    """Tells whoever has started it when it can be dialled."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print("ready", flush=True)


def leave(*_: Any) -> NoReturn:
    """SIGTERM before uvicorn takes it over, and again after uvicorn has shut down."""
    sys.exit(0)


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description="The benchmark's peer: pipecat behind Vonage.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--openai-url", required=True, help="http://127.0.0.1:<port>/v1")
    parser.add_argument("--greeting", required=True, help="what the model is asked to say first")
    options = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    signal.signal(signal.SIGTERM, leave)
    realtime_url = f"ws{options.openai_url.removeprefix('http').rstrip('/')}/realtime"
    app = build_app(realtime_url, options.greeting)
    Server(uvicorn.Config(app, host=HOST, port=options.port, log_level="warning")).run()


if __name__ == "__main__":
    main()
