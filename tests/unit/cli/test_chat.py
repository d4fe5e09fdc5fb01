"""The conversation: what is sent, what is kept, what a cut answer leaves."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pilothouse.cli.chat import ChatOptions, Conversation, Told, events, figures
from pilothouse.domain.errors import EngineUnavailable, UpstreamError


def delta(text: str) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}}]})


END = [
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}',
    b"data: [DONE]",
]


class FakeServer:
    """Streams what it was given, and remembers the bodies that it got."""

    def __init__(self, *answers: list[bytes]) -> None:
        self._answers = list(answers)
        self.bodies: list[Any] = []
        self.hung_up = False

    def lines(self, method: str, path: str, *, body: object = None) -> Iterator[bytes]:
        self.bodies.append(msgspec.json.decode(msgspec.json.encode(body)))
        answer = self._answers.pop(0)
        try:
            yield from answer
        except GeneratorExit:
            self.hung_up = True
            raise


def conversation(server: FakeServer, **options: object) -> Conversation:
    return Conversation(server, "smollm2", ChatOptions(**options))  # type: ignore[arg-type]


def test_an_answer_comes_in_pieces_and_is_counted() -> None:
    talk = conversation(FakeServer([b": keep-alive", b"", delta("Hel"), delta("lo"), *END]))

    assert list(talk.ask("hi")) == ["Hel", "lo"]
    assert (talk.told.text, talk.told.tokens, talk.told.finish_reason) == ("Hello", 2, "stop")
    assert talk.told.ttft_ms is not None


def test_the_next_question_carries_the_conversation() -> None:
    server = FakeServer([delta("one"), *END], [delta("two"), *END], [delta("three"), *END])
    talk = conversation(server, system="be brief", temperature=0.0, max_tokens=5)

    list(talk.ask("a"))
    list(talk.ask("b"))
    talk.clear()
    list(talk.ask("c"))

    assert [m["content"] for m in server.bodies[1]["messages"]] == ["be brief", "a", "one", "b"]
    assert [m["content"] for m in server.bodies[2]["messages"]] == ["be brief", "c"]
    assert (server.bodies[0]["temperature"], server.bodies[0]["max_tokens"]) == (0.0, 5)


def test_stopping_an_answer_hangs_up_and_keeps_what_was_there() -> None:
    server = FakeServer([delta("par"), delta("tial"), *END], [delta("x"), *END])
    talk = conversation(server)

    answer = talk.ask("a")
    next(answer)
    answer.close()
    list(talk.ask("b"))

    assert server.hung_up
    assert [m["content"] for m in server.bodies[1]["messages"]] == ["a", "par", "b"]


def test_a_question_without_an_answer_is_not_part_of_the_conversation() -> None:
    failed = b'data: {"error":{"message":"no replica","code":"engine_unavailable"}}'
    server = FakeServer([failed], [delta("x"), *END])
    talk = conversation(server)

    with pytest.raises(EngineUnavailable, match="no replica"):
        list(talk.ask("a"))
    list(talk.ask("b"))

    assert [m["content"] for m in server.bodies[1]["messages"]] == ["b"]


def test_an_answer_that_was_cut_is_no_clean_end() -> None:
    with pytest.raises(UpstreamError, match="cut before its end"):
        list(events(iter([delta("x")])))


def test_what_is_not_an_event_is_told() -> None:
    with pytest.raises(UpstreamError, match="not what Pilothouse sends"):
        list(events(iter([b"data: <html>"])))


def test_the_figures_of_an_answer_are_one_line() -> None:
    told = Told(text="x", ttft_ms=210.4, tokens=34, tokens_per_s=45.23, finish_reason="length")

    assert figures(told) == "first token 210 ms, 34 tokens, 45.2 tokens/s, cut at its longest (--max-tokens)"
    assert figures(Told()) == "0 tokens"
