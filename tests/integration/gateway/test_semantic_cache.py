"""Questions in other words: answered where vectors and rules agree, and only within a scene."""

import json

from gateway_rig import OTHER_TEAM, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.chat import Embeddings
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import CachePolicy, Route, SemanticPolicy
from pilothouse.domain.used_tokens import Usage
from watched_engine import WatchedEngine

POLICY = CachePolicy(
    exact_ttl_s=60.0, fingerprint="f", semantic=SemanticPolicy(embedder="vectors", threshold=0.9, ttl_s=60.0)
)


class Vectors(WatchedEngine):
    """Counts words: texts of the same words have the same vector, whatever their order."""

    is_down = False

    async def embed(self, request, *, deadline_s):
        if self.is_down:
            raise EngineUnavailable("down")
        self.embedded.append(request)
        bags = [
            [float(text.lower().count(letter)) for letter in "aeioubcdfgklmnprstvw"]
            for text in request.inputs
        ]
        return Embeddings(bags, Usage(1))


def served(*, model="sha256:v"):
    return snapshot(
        replica_entry(model_digest="sha256:1"),
        replica_entry("vectors-0", "vectors", model_digest=model),
        endpoints=(
            endpoint_entry(cache=POLICY),
            endpoint_entry("vectors", tasks=("embedding",), routes=(Route("vectors"),)),
        ),
    )


def semantic_house(vectors=None):
    engines = {"chat": WatchedEngine(), "vectors": vectors or Vectors()}
    return engines, house(lambda entry: engines[entry.deployment], served())


def body(text, *, system="Be brief.", **more):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return json.dumps({"model": "chat", "messages": messages, "temperature": 0, **more}).encode()


async def results(h, *bodies, as_key=None):
    more = {} if as_key is None else {"as_key": as_key}
    return [(await h.ask(body=one, **more)).headers["x-pilothouse-cache"] for one in bodies]


async def test_the_same_question_in_other_words_gets_the_same_answer():
    engines, running = semantic_house()
    async with running as h:
        found = await results(
            h, body("what is green tea"), body("green tea what is"), body("green tea what is", stream=True)
        )
        records = [record.cache for record in h.records]

    assert found == records == ["miss", "semantic", "semantic"]
    assert len(engines["chat"].asked) == 1


async def test_a_rule_makes_a_miss_of_what_is_near():
    _, running = semantic_house()
    async with running as h:
        found = await results(h, body("is green tea safe at 5 g"), body("is green tea safe at 50 g"))

    assert found == ["miss", "miss"]


async def test_all_but_the_last_message_must_be_equal():
    _, running = semantic_house()
    async with running as h:
        found = await results(
            h,
            body("what is green tea"),
            body("green tea what is", system="Be long."),
            body("green tea what is", top_p=0.5),
            body("green tea what is", max_tokens=5),
        )
        found += await results(h, body("green tea what is"), as_key=OTHER_TEAM)

    assert found == ["miss"] * 5


async def test_vectors_of_another_model_are_not_compared():
    _, running = semantic_house()
    async with running as h:
        found = await results(h, body("what is green tea"))
        h.state.apply(served(model="sha256:w"))
        found += await results(h, body("green tea what is"))

    assert found == ["miss", "miss"]


async def test_without_vectors_it_is_a_miss_and_no_error():
    vectors = Vectors()
    vectors.is_down = True
    _, running = semantic_house(vectors)
    async with running as h:
        answers = [await h.ask(body=body(text)) for text in ("what is green tea", "green tea what is")]
        quiet = h.is_quiet

    assert [a.status for a in answers] == [200, 200]
    assert [a.headers["x-pilothouse-cache"] for a in answers] == ["miss", "miss"]
    assert quiet


async def test_the_exact_question_needs_no_vector():
    vectors = Vectors()
    _, running = semantic_house(vectors)
    async with running as h:
        found = await results(h, body("what is green tea"), body("what is green tea"))

    assert found == ["miss", "hit"]
    assert len(vectors.embedded) == 1


async def test_what_a_request_keeps_out_of_the_cache_is_not_embedded():
    vectors = Vectors()
    _, running = semantic_house(vectors)
    async with running as h:
        await h.ask(body=body("what is green tea"), headers=b"x-pilothouse-cache: no-store\r\n")
        await h.ask(body=body("what is green tea", temperature=1))

    assert vectors.embedded == []


async def test_an_answer_that_is_gone_is_a_miss():
    _, running = semantic_house()
    async with running as h:
        first = await results(h, body("what is green tea"))
        h.recall._near.drop(lambda _: True)
        again = await results(h, body("green tea what is"), body("green tea what is"))

    assert first + again == ["miss", "miss", "hit"]
