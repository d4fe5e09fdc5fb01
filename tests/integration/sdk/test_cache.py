"""The published OpenAI client sees no difference between an answer and one that is given again."""

from openai import OpenAI

from gateway_rig import DEVELOPER, endpoint_entry, house_in_thread, key, replica_entry, snapshot
from pilothouse.domain.snapshot import CachePolicy
from watched_engine import WatchedEngine, words

HELLO = [{"role": "user", "content": "Say hello."}]


def test_the_sdk_gets_whole_answers_and_streams_from_the_cache():
    engine = WatchedEngine(words("One two ", "three four ", "five."))
    endpoint = endpoint_entry(cache=CachePolicy(exact_ttl_s=60.0))
    served = snapshot(replica_entry(model_digest="sha256:1"), endpoints=(endpoint,))
    with (
        house_in_thread(engine, served) as house,
        OpenAI(base_url=house.url, api_key=key(DEVELOPER)) as client,
    ):
        whole = [
            client.chat.completions.with_raw_response.create(
                model="chat", messages=HELLO, temperature=0, max_tokens=20
            )
            for _ in range(2)
        ]
        stream = list(
            client.chat.completions.create(
                model="chat", messages=HELLO, temperature=0, max_tokens=20, stream=True,
                stream_options={"include_usage": True},
            )
        )  # fmt: skip

    first, again = (raw.parse() for raw in whole)
    assert [raw.headers["x-pilothouse-cache"] for raw in whole] == ["miss", "hit"]
    assert first.choices == again.choices
    assert first.usage == again.usage == stream[-1].usage
    assert first.id != again.id
    texts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(texts) == first.choices[0].message.content == "One two three four five."
    assert sum(map(bool, texts)) > 1
    assert len(engine.asked) == 1
