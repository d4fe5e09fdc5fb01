"""The generation loop that runs inside model servers, in a real environment with torch, on random weights."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines._own_code import generator_files

FIXTURES = Path(__file__).parents[2] / "fixtures"
PYTHON = next((path for name in ("triton", "transformers") if Path(path := python_of(name)).exists()), "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="no torch here: pilothouse engine install transformers"),
]
CONTEXT_TOKENS = 600
Generate = Callable[..., Any]


@pytest.fixture(scope="module")
def generate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generate]:
    folder = tmp_path_factory.mktemp("generator")
    for path, text in generator_files().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    subprocess.run([PYTHON, "-I", FIXTURES / "make_tiny_llama.py", folder / "model"], check=True, timeout=300)
    argv = [PYTHON, "-I", FIXTURES / "run_generator.py", folder, folder / "model", str(CONTEXT_TOKENS)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout

        def ask(*requests: dict[str, Any], **alone: Any) -> Any:
            said = [{"temperature": 0, "max_tokens": 8} | one for one in requests or [alone]]
            print(json.dumps(said), file=child.stdin, flush=True)
            answers = json.loads(child.stdout.readline())
            return answers if requests else answers[0]

        yield ask
        child.stdin.close()
        child.wait(timeout=30)


def text_of(pieces: list[dict[str, Any]]) -> str:
    return "".join(piece["text"] for piece in pieces)


def said(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the signs of life while the prompt was read."""
    return [piece for piece in pieces if piece != {"text": ""}]


def test_an_answer_comes_in_pieces_and_ends_with_the_counts(generate: Generate) -> None:
    pieces = generate(prompt="One, two")

    assert [len(piece["text"]) for piece in pieces[:-1]] == [1] * 8
    assert pieces[-1] == {"text": "", "finish": "length", "prompt_tokens": 6, "completion_tokens": 8}


def test_messages_are_read_by_the_models_own_template(generate: Generate) -> None:
    chat = generate(messages=[{"role": "user", "content": "Say"}])

    assert text_of(chat) == text_of(generate(prompt="user: Say\n"))


def test_a_long_prompt_is_read_in_pieces_and_says_the_same(generate: Generate) -> None:
    """Greedy tokens after a prompt of one piece and of three: the last ones of each see the same text."""
    pieces = generate(prompt="sea " * 560, max_tokens=2)

    assert pieces[-1]["prompt_tokens"] == 561
    assert len(text_of(pieces)) == 2


def test_a_seed_chooses_the_answer(generate: Generate) -> None:
    texts = [text_of(generate(prompt="x", temperature=1.5, seed=seed, max_tokens=16)) for seed in (7, 7, 8)]

    assert texts[0] == texts[1] != texts[2]


def test_a_narrow_choice_is_the_likeliest_token(generate: Generate) -> None:
    likeliest = text_of(generate(prompt="x"))

    assert text_of(generate(prompt="x", temperature=2.0, top_k=1)) == likeliest
    assert text_of(generate(prompt="x", temperature=2.0, top_p=0.0)) == likeliest


def test_a_stop_text_ends_the_answer_before_it(generate: Generate) -> None:
    whole = text_of(generate(prompt="One, two"))

    pieces = generate(prompt="One, two", stop=[whole[3:6]])

    assert text_of(pieces) == whole[: whole.index(whole[3:6])]
    assert pieces[-1]["finish"] == "stop"


def test_the_context_bounds_prompt_and_answer(generate: Generate) -> None:
    fits = generate(prompt="a" * (CONTEXT_TOKENS - 3), max_tokens=50)
    refused = generate(prompt="a" * CONTEXT_TOKENS)

    assert (fits[-1]["finish"], fits[-1]["completion_tokens"]) == ("length", 3)
    assert refused == [{"error": "too_long", "prompt_tokens": CONTEXT_TOKENS, "limit": CONTEXT_TOKENS}]


def test_nothing_more_is_said_once_nobody_listens(generate: Generate) -> None:
    in_the_answer = generate(prompt="x", max_tokens=100, cancel_after=4)
    in_the_prompt = generate(prompt="sea " * 560, cancel_after=1)

    assert len(in_the_answer) == 4
    assert in_the_prompt == []


def test_answers_given_together_are_those_given_alone(generate: Generate) -> None:
    """Of unlike lengths, so that they join and leave each other at different tokens; the third one waits."""
    requests = [
        {"prompt": "sea " * 100, "max_tokens": 5},
        {"prompt": "One, two", "max_tokens": 12},
        {"messages": [{"role": "user", "content": "Say"}], "max_tokens": 9},
    ]

    together = generate(*requests)

    assert [said(pieces) for pieces in together] == [generate(**request) for request in requests]


def test_who_leaves_a_batch_leaves_the_others_alone(generate: Generate) -> None:
    gone, left = generate(
        {"prompt": "sea " * 20, "max_tokens": 200, "cancel_after": 9},
        {"prompt": "One, two", "max_tokens": 24},
    )

    assert 0 < len(said(gone)) < 12
    assert said(left) == generate(prompt="One, two", max_tokens=24)


def test_a_batch_refuses_what_it_has_no_room_for(generate: Generate) -> None:
    answers = generate(*[{"prompt": f"{i}", "max_tokens": 100} for i in range(8)], {"prompt": "a" * 700})

    assert [said(pieces) for pieces in answers[:3]] == [
        generate(prompt=f"{i}", max_tokens=100) for i in range(3)
    ]
    assert answers[-2:] == [[{"error": "full"}]] * 2
