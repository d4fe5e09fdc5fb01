"""
What each protocol's codec costs beside the OpenAI dialect's, which passes most of a request through.

Pure codecs, no server: the same short conversation is read as a request, the same token
is written as an event of a stream, the same answer whole; and, for a provider, a request
of OpenAI's client is read and written anew, and the provider's event is read. Processor
time of one thread.

    python bench/codecs.py [--quick] [--json]
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import cycle

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.anthropic import dialect as anthropic_dialect
from pilothouse.wire.anthropic import outbound as anthropic_outbound
from pilothouse.wire.anthropic.said import StreamReader
from pilothouse.wire.bedrock import outbound as bedrock_outbound
from pilothouse.wire.bedrock import said as bedrock_said
from pilothouse.wire.bedrock.eventstream import Message
from pilothouse.wire.dialect import GenerateDialect
from pilothouse.wire.gemini import outbound as gemini_outbound
from pilothouse.wire.gemini import said as gemini_said
from pilothouse.wire.ollama import dialect as ollama_dialect
from pilothouse.wire.openai import dialect as openai_dialect
from pilothouse.wire.openai import outbound as openai_outbound
from pilothouse.wire.responses.dialect import RESPONSES
from rig.report import Figure, Report, figure, options, publish, ratios

PEER = "openai"
GOAL = "<= 2"
SYSTEM = "You are a helpful assistant. Answer briefly, in whole sentences, and say so if you do not know."
QUESTION = "What should I see in Lisbon in two days, if I like tiles, music and long walks by the river?"
EARLIER = "Begin in Alfama in the morning, and take the tram up to Graça for the view over the roofs."
TURNS = [
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": EARLIER},
    {"role": "user", "content": QUESTION},
]
WITH_SYSTEM = [{"role": "system", "content": SYSTEM}, *TURNS]
DIALECTS: dict[str, tuple[GenerateDialect, dict[str, object]]] = {
    "openai": (
        openai_dialect.CHAT,
        {
            "model": "chat",
            "messages": WITH_SYSTEM,
            "temperature": 0.5,
            "max_tokens": 256,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "anthropic": (
        anthropic_dialect.MESSAGES,
        {
            "model": "chat",
            "system": SYSTEM,
            "messages": TURNS,
            "temperature": 0.5,
            "max_tokens": 256,
            "stream": True,
        },
    ),
    "responses": (
        RESPONSES,
        {
            "model": "chat",
            "instructions": SYSTEM,
            "input": TURNS,
            "temperature": 0.5,
            "max_output_tokens": 256,
            "stream": True,
        },
    ),
    "ollama": (
        ollama_dialect.CHAT,
        {
            "model": "chat",
            "messages": WITH_SYSTEM,
            "options": {"temperature": 0.5, "num_predict": 256},
            "stream": True,
        },
    ),
}
TOKEN = Chunk((Delta(" Lisbon"),))
WHOLE = [Delta(EARLIER * 4, 0, "stop")]
USAGE = Usage(90, 80)

Work = Callable[[], object]


def never_met(asked: dict[str, object]) -> Iterator[bytes]:
    """A request whose fields differ each time: what is compared is the decoders, not what they remember."""
    return cycle([json.dumps({**asked, "model": f"chat-{i}"}).encode() for i in range(1000)])


def inbound_works() -> dict[str, dict[str, Work]]:
    """By what is done, for each protocol that comes in."""
    works: dict[str, dict[str, Work]] = {"request": {}, "stream event": {}, "whole answer": {}}
    for name, (dialect, asked) in DIALECTS.items():
        bodies = never_met(asked)
        ask = dialect.read(next(bodies))
        writer = dialect.writer(ask, answer_id=f"{dialect.id_prefix}1", created=1)
        writer.chunk(TOKEN)  # what begins a stream is written once
        works["request"][name] = lambda read=dialect.read, bodies=bodies: read(next(bodies))  # type: ignore[misc]
        works["stream event"][name] = lambda write=writer.chunk: write(TOKEN)  # type: ignore[misc]
        works["whole answer"][name] = lambda d=dialect, ask=ask: d.whole(  # type: ignore[misc]
            ask, WHOLE, USAGE, answer_id="x_1", created=1
        )
    return works


def outbound_works() -> dict[str, dict[str, Work]]:
    """The same for each protocol that goes out."""
    piece = {"index": 0, "delta": {"content": " Lisbon"}, "logprobs": None, "finish_reason": None}
    said = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [piece],
    }
    event = json.dumps(said).encode()
    reader = StreamReader()
    opened = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for one in ({"type": "message_start", "message": {"content": []}}, opened):
        reader.read(json.dumps(one).encode())
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " Lisbon"}}
    theirs = json.dumps(delta).encode()
    candidate = {"content": {"parts": [{"text": " Lisbon"}], "role": "model"}, "index": 0}
    answer = json.dumps({"candidates": [candidate], "responseId": "r1"}).encode()
    gemini = gemini_said.AnswerReader(1)
    bedrock = bedrock_said.StreamReader()
    bedrock.read(_told("messageStart", {"role": "assistant"}))
    piece_there = _told("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": " Lisbon"}})
    bodies = never_met(DIALECTS["openai"][1])
    writer = openai_outbound.RequestWriter("m")

    def read() -> GenerateRequest:
        return openai_dialect.CHAT.read(next(bodies))

    return {
        "request, from OpenAI's client to a provider": {
            "openai": lambda: b"".join(writer.write(read(), stream=True)),
            "anthropic": lambda: anthropic_outbound.write_request(read(), model="m", stream=True),
            "gemini": lambda: gemini_outbound.write_request(read()),
            "bedrock": lambda: bedrock_outbound.write_request(read()),
        },
        "stream event, from a provider": {
            "openai": lambda: openai_outbound.read_said(event),
            "anthropic": lambda: reader.read(theirs),
            "gemini": lambda: gemini.read(answer),
            "bedrock": lambda: bedrock.read(piece_there),
        },
    }


def _told(name: str, payload: dict[str, object]) -> Message:
    """A message of Bedrock's stream, out of its frame."""
    return Message({":message-type": "event", ":event-type": name}, json.dumps(payload).encode())


def microseconds(work: Work, count: int) -> float:
    """Processor time of one."""
    began = time.process_time_ns()
    for _ in range(count):
        work()
    return (time.process_time_ns() - began) / 1000 / count


def main() -> None:
    given = options(__doc__ or "").parse_args()
    rounds, count = (5, 500) if given.quick else (100, 2000)
    figures: list[Figure] = []
    for what, works in (inbound_works() | outbound_works()).items():
        took: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                took[name].append(microseconds(work, count))
        figures += [figure(f"{what}: {name}", took[name], unit="us") for name in works]
        figures += [
            figure(f"{what}: {name} / {PEER}", ratios(took[name], took[PEER]), unit="x", goal=GOAL)
            for name in works
            if name != PEER
        ]
    report = Report(
        bench="codecs: what each protocol's codec costs, for a conversation of four messages",
        method=f"{rounds} interleaved rounds of {count}, of one thread's processor time, medians",
        peer="the OpenAI dialect, whose messages pass through as they came",
        figures=figures,
    )
    publish(report, given)


if __name__ == "__main__":
    main()
