"""
`pilothouse chat`: a conversation with an endpoint in the terminal, with the time that each answer took.

It is a client of `/v1/chat/completions` like any other. Hanging up is how an
answer is cancelled.
"""

import importlib
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing

import click
import msgspec
from msgspec import Struct, field

from pilothouse.cli.client import Server, error_of
from pilothouse.cli.get import list_of_models
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import clean
from pilothouse.domain.errors import InvalidRequest, NotFound, PilothouseError, UpstreamError

MAX_INPUT_BYTES = 1024 * 1024
HELP = "/exit ends, /clear forgets the conversation, Ctrl-C stops an answer"


class Message(Struct, frozen=True):
    role: str
    content: str


class Told(Struct, kw_only=True):
    """An answer and its times; what a cut answer had is in it too."""

    text: str = ""
    ttft_ms: float | None = None
    duration_ms: float = 0.0
    tokens: int = 0
    tokens_per_s: float | None = None
    finish_reason: str = ""


class ChatOptions(Struct, frozen=True, kw_only=True):
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None


class _Delta(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(Struct, frozen=True):
    completion_tokens: int = 0


class _Event(Struct, frozen=True):
    choices: list[_Choice] = field(default_factory=list)
    usage: _Usage | None = None
    error: dict[str, object] | None = None


@click.command()
@click.argument("endpoint", required=False)
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer.")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), metavar="T", help="0 is the same answer each time."
)
@client_command
def chat(reach: Reach, /, endpoint: str | None, prompt: str | None, **options: object) -> None:
    """
    Talk to an endpoint; with a PROMPT (or text piped in) it answers once.

    In a conversation /exit ends, /clear forgets, Ctrl-C stops an answer.

    \b
    Example:
      pilothouse chat
      pilothouse chat smollm2 "Why is the sky blue?"
      git diff | pilothouse chat smollm2 --system "Sum this up"
    """
    server = reach.server()
    name = endpoint or _only_endpoint(server)
    talk = Conversation(server, name, msgspec.convert(options, ChatOptions))
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read(MAX_INPUT_BYTES + 1)
        if len(prompt) > MAX_INPUT_BYTES or not prompt.strip():
            raise InvalidRequest(
                f"the input is empty or over {MAX_INPUT_BYTES} characters. fix: pipe a text in"
            )
    if prompt is not None:
        _answer_once(reach, talk, prompt)
    elif reach.out.is_json:
        raise InvalidRequest("--json answers once. fix: give a PROMPT, or pipe one in")
    else:
        _converse(talk)


class Conversation:
    """The messages so far, and the way to the next answer."""

    def __init__(self, server: Server, endpoint: str, options: ChatOptions) -> None:
        self.endpoint = endpoint
        self.told = Told()
        self._server = server
        self._options = options
        self.clear()

    def clear(self) -> None:
        self._messages = [Message("system", self._options.system)] if self._options.system else []

    def ask(self, prompt: str) -> Generator[str, None, None]:
        """
        Yield the answer as it comes; closing the iterator stops it at the server.

        A prompt that got no answer is not part of the conversation.

        Raises:
            PilothouseError: The server's error, or UpstreamError where the answer was cut.
        """
        self._messages.append(Message("user", prompt))
        self.told = Told()
        try:
            yield from self._stream()
        finally:
            if self.told.text:
                self._messages.append(Message("assistant", self.told.text))
            else:
                self._messages.pop()

    def _stream(self) -> Iterator[str]:
        body: dict[str, object] = {
            "model": self.endpoint,
            "messages": self._messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        chosen = {"max_tokens": self._options.max_tokens, "temperature": self._options.temperature}
        body |= {name: value for name, value in chosen.items() if value is not None}
        told, began = self.told, time.perf_counter()
        first = last = 0.0
        deltas = 0
        for event in events(self._server.lines("POST", "/v1/chat/completions", body=body)):
            if event.usage:
                told.tokens = event.usage.completion_tokens
            for choice in event.choices:
                told.finish_reason = choice.finish_reason or told.finish_reason
                if text := choice.delta.content:
                    last = time.perf_counter()
                    first = first or last
                    deltas += 1
                    told.ttft_ms = round((first - began) * 1000, 1)
                    told.text += text
                    yield text
        told.tokens = told.tokens or deltas
        told.duration_ms = round((time.perf_counter() - began) * 1000, 1)
        if told.tokens > 1 and last > first:
            told.tokens_per_s = round((told.tokens - 1) / (last - first), 1)


def events(lines: Iterator[bytes]) -> Iterator[_Event]:
    """
    The events of a streamed answer.

    Raises:
        PilothouseError: The event that tells of one, or UpstreamError when the stream ends early.
    """
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            event = msgspec.json.decode(data, type=_Event)
        except msgspec.DecodeError as exc:
            raise UpstreamError("the answer is not what Pilothouse sends. fix: check --url") from exc
        if event.error is not None:
            raise error_of({"error": event.error}, 502)
        yield event
    raise UpstreamError("the answer was cut before its end. fix: try again; see pilothouse logs")


def _answer_once(reach: Reach, talk: Conversation, prompt: str) -> None:
    for text in talk.ask(prompt):
        if not reach.out.is_json:
            click.echo(clean(text), nl=False)
    if reach.out.is_json:
        reach.out.json({"endpoint": talk.endpoint, **msgspec.structs.asdict(talk.told)})
        return
    click.echo()
    click.echo(figures(talk.told), err=True)


def _converse(talk: Conversation) -> None:
    importlib.import_module("readline")  # gives `input` line editing and history
    click.echo(f"{talk.endpoint}: {HELP}", err=True)
    while True:
        try:
            prompt = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
        if prompt == "/exit":
            return
        if prompt == "/clear":
            talk.clear()
        elif prompt.startswith("/"):
            click.echo(HELP, err=True)
        elif prompt:
            _answer(talk, prompt)


def _answer(talk: Conversation, prompt: str) -> None:
    """One turn; neither a failure nor a Ctrl-C ends the conversation."""
    try:
        with closing(talk.ask(prompt)) as answer:
            for text in answer:
                click.echo(clean(text), nl=False)
        click.echo("\n" + click.style(figures(talk.told), dim=True))
    except KeyboardInterrupt:
        click.echo("\n" + click.style("stopped", dim=True))
    except PilothouseError as exc:
        hint = " (/clear starts anew)" if exc.code == "context_length_exceeded" else ""
        click.echo(f"\nerror: {exc.message}{hint}", err=True)


def figures(told: Told) -> str:
    """`first token 210 ms, 34 tokens, 45.2 tokens/s`"""
    parts = []
    if told.ttft_ms is not None:
        parts.append(f"first token {told.ttft_ms:.0f} ms")
    parts.append(f"{told.tokens} tokens")
    if told.tokens_per_s is not None:
        parts.append(f"{told.tokens_per_s:.1f} tokens/s")
    if told.finish_reason == "length":
        parts.append("cut at its longest (--max-tokens)")
    return ", ".join(parts)


def _only_endpoint(server: Server) -> str:
    names = list_of_models(server)
    if not names:
        raise NotFound("there is no endpoint to talk to. fix: see pilothouse status")
    if len(names) > 1:
        raise InvalidRequest(f"which endpoint? fix: pilothouse chat ENDPOINT, one of {', '.join(names)}")
    return names[0]
