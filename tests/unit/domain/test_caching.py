"""A key stands for one tenant, one policy, one version, one question; and nothing else matters to it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from pilothouse.domain.caching import (
    head_of,
    identity_of,
    is_cacheable,
    is_complete,
    pieces_of,
    stem_of,
    steps_of,
)
from pilothouse.domain.chat import Sampling
from pilothouse.domain.chunk import Delta
from pilothouse.domain.snapshot import CachePolicy, EndpointEntry, ReplicaEntry
from pilothouse.kit.fingerprint import shared_fingerprint
from pilothouse.wire.openai.canonical import canonical_prompt, canonical_sampling
from pilothouse.wire.openai.inbound import read_chat

POLICY = CachePolicy(exact_ttl_s=60.0, fingerprint="f")
ENDPOINT = EndpointEntry(name="chat", revision=1, routes=(), cache=POLICY)
names = st.text(max_size=12)


def stem(*, team="a", endpoint=ENDPOINT, deployment="d", identity="llama\nsha256:1", purges=None):
    return stem_of(team, endpoint, deployment, identity, purges or {})


def key(body: dict | str, *, of=None):
    text = body if isinstance(body, str) else json.dumps(body)
    ask = read_chat(text.encode())
    head = head_of(of or stem(), ask, canonical_sampling(ask))
    return shared_fingerprint(head, canonical_prompt(ask))


def body(**more):
    return {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, **more}


@given(st.lists(st.tuples(names, names, names, names), min_size=2, max_size=2, unique=True))
def test_no_two_tenants_policies_or_versions_share_a_stem(pair):
    one, other = (
        stem(team=t, endpoint=replace(ENDPOINT, name=e), deployment=d, identity=i) for t, e, d, i in pair
    )

    assert one != other


@pytest.mark.parametrize("scope", ["\n", "a\n", "\nchat", "a\nchat"])
def test_a_purge_gives_another_stem(scope):
    assert stem(purges={scope: 1}) != stem()


@pytest.mark.parametrize("scope", ["b\n", "\nelse", "a\nelse", "b\nchat"])
def test_a_purge_of_something_else_changes_nothing(scope):
    assert stem(purges={scope: 1}) == stem()


def test_another_policy_gives_another_stem():
    changed = replace(ENDPOINT, cache=replace(POLICY, fingerprint="g"))

    assert stem(endpoint=changed) != stem()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=30)},
        optional={"name": st.text(max_size=5)},
    ),
    min_size=1,
    max_size=4,
)
bodies = st.fixed_dictionaries(
    {"model": st.just("chat"), "messages": messages, "temperature": st.sampled_from([0, 0.5])},
    optional={
        "seed": st.integers(0, 3),
        "max_tokens": st.integers(1, 3),
        "n": st.integers(1, 2),
        "stop": st.sampled_from(["a", ["a"], ["a", "b"]]),
        "top_p": st.sampled_from([0.5, 1]),
        "logprobs": st.booleans(),
        "response_format": st.sampled_from([{"type": "json_object"}, {"type": "text"}]),
    },
)


@given(bodies, st.randoms(use_true_random=False), st.booleans())
def test_order_whitespace_and_escapes_do_not_matter(asked, random, ascii_only):
    def shuffled(value):
        if isinstance(value, dict):
            items = list(value.items())
            random.shuffle(items)
            return {name: shuffled(inner) for name, inner in items}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    again = json.dumps(shuffled(asked), indent=random.choice([None, 1]), ensure_ascii=ascii_only)

    assert key(again) == key(asked)


@given(bodies, bodies)
def test_different_questions_have_different_keys(one, other):
    def meaning(asked):
        ask = read_chat(json.dumps(asked).encode())
        sampling = [getattr(ask.sampling, name) for name in ask.sampling.__struct_fields__]
        plain = [json.loads(bytes(value)) if isinstance(value, Raw) else value for value in sampling]
        return (canonical_prompt(ask), ask.max_tokens, ask.choices, repr(plain))

    assert (key(one) == key(other)) == (meaning(one) == meaning(other))


@pytest.mark.parametrize(
    "more", [{"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"user": "u"}]
)
def test_how_it_is_handed_over_and_who_asks_are_no_part_of_the_key(more):
    assert key(body(**more)) == key(body())


def test_a_schema_keeps_the_order_of_its_fields():
    def asked(properties):
        schema = {"name": "s", "schema": {"type": "object", "properties": properties}}
        return body(response_format={"type": "json_schema", "json_schema": schema})

    assert key(asked({"a": {}, "b": {}})) != key(asked({"b": {}, "a": {}}))


@pytest.mark.parametrize(
    ("sampling", "always", "expected"),
    [
        (Sampling(temperature=0), False, True),
        (Sampling(temperature=0.7, seed=1), False, True),
        (Sampling(), False, False),
        (Sampling(temperature=0.7), False, False),
        (Sampling(temperature=0.7), True, True),
    ],
)
def test_sampled_answers_are_given_again_only_where_the_endpoint_says_so(sampling, always, expected):
    ask = read_chat(json.dumps(body()).encode()).changed(sampling=sampling)

    assert is_cacheable(ask, replace(POLICY, always=always)) is expected


def test_log_probabilities_of_plain_completions_are_not_cached():
    ask = read_chat(json.dumps(body()).encode())

    assert not is_cacheable(
        ask.changed(kind="completion", sampling=Sampling(temperature=0, logprobs=2)), POLICY
    )


def replica(**more):
    return ReplicaEntry(name="r", deployment="d", engine="llama.cpp", address="unix:/a", **more)


def test_replicas_of_one_model_are_one_identity_wherever_they_are():
    one = replica(model_digest="sha256:1")

    assert identity_of([one, replace(one, address="unix:/b")]) == identity_of([one]) is not None


def test_two_models_behind_one_deployment_are_no_identity():
    assert identity_of([replica(model_digest="sha256:1"), replica(model_digest="sha256:2")]) is None
    assert identity_of([]) is None


def test_a_provider_is_known_by_its_address_and_model():
    one = replica(model="gpt")

    assert identity_of([one]) != identity_of([replace(one, address="https://other/v1")])
    assert identity_of([one]) != identity_of([replace(one, model="gpt-2")])


@pytest.mark.parametrize(("reason", "expected"), [("stop", True), ("length", True), (None, False)])
def test_an_answer_is_complete_when_the_engine_said_so(reason, expected):
    assert is_complete([Delta("x", 0, "stop"), Delta("x", 1, reason)]) is expected
    assert not is_complete([Delta("x", 0, "content_filter")])


@given(st.text(max_size=500))
def test_pieces_are_the_text_in_few_parts(text):
    pieces = pieces_of(text)

    assert "".join(pieces) == text
    assert len(pieces) <= 16
    assert all(pieces)


def test_a_replay_has_several_steps_and_an_end_for_each_choice():
    steps = list(steps_of([Delta("one two three four", 0, "stop"), Delta("x", 1, "length", Raw(b"{}"))]))

    assert "".join(step.text for step in steps if step.index == 0) == "one two three four"
    assert sum(1 for step in steps if step.index == 0) > 3
    assert [(s.text, s.finish_reason) for s in steps if s.index == 1] == [("x", None), ("", "length")]
