"""The published OpenAI client's `responses`, unchanged: whole, streamed, gone on from, kept and deleted."""

import openai
import pytest
from openai import OpenAI

CHAT = "chat"


@pytest.fixture
def client(served):
    with OpenAI(base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def kept(served, client):
    """For what the controller has a part in: the scripted data plane has none."""
    if served.is_scripted:
        pytest.skip("the scripted data plane has no controller")
    return client


def test_a_response(client):
    answer = client.responses.create(
        model=CHAT,
        input="Say hello.",
        instructions="Be brief.",
        temperature=0,
        max_output_tokens=8,
        metadata={"a": "b"},
    )

    assert answer.id.startswith("resp_")
    assert answer.output_text
    assert answer.status in ("completed", "incomplete")
    assert answer.metadata == {"a": "b"}
    assert answer.instructions == "Be brief."
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_a_streamed_response_is_put_together_by_the_client(client):
    with client.responses.stream(
        model=CHAT, input="Say hello.", temperature=0, max_output_tokens=12
    ) as stream:
        events = list(stream)

    kinds = [event.type for event in events]
    said = "".join([event.delta for event in events if event.type == "response.output_text.delta"])
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == said != ""


def test_a_stream_that_breaks_off_fails(served):
    if not served.is_scripted:
        pytest.skip("the real engine does not fail on demand")
    with OpenAI(base_url=served.base_url, api_key=served.api_key, max_retries=0) as client:
        events = list(client.responses.create(model="broken", input="x", stream=True))

    assert [event.type for event in events[-2:]] == ["error", "response.failed"]


def test_what_is_not_here_is_refused_by_name(client):
    with pytest.raises(openai.APIStatusError) as refused:
        client.responses.create(model=CHAT, input="x", tools=[{"type": "web_search"}])
    assert refused.value.status_code == 501
    assert refused.value.body["param"] == "tools[0].type"


def test_a_conversation_goes_on_from_its_last_response(kept):
    first = kept.responses.create(model=CHAT, input="My name is Ada.", temperature=0, max_output_tokens=8)
    second = kept.responses.create(
        model=CHAT,
        input="What is my name?",
        previous_response_id=first.id,
        temperature=0,
        max_output_tokens=8,
    )
    third = kept.responses.create(
        model=CHAT, input="Once more.", previous_response_id=second.id, temperature=0, max_output_tokens=4
    )

    assert second.previous_response_id == first.id
    assert first.usage.input_tokens < second.usage.input_tokens < third.usage.input_tokens


def test_a_kept_response_is_shown_as_it_was_and_deleted_for_good(kept):
    made = kept.responses.create(model=CHAT, input="Say hello.", temperature=0, max_output_tokens=8)
    shown = kept.responses.retrieve(made.id)
    items = list(kept.responses.input_items.list(made.id))
    kept.responses.delete(made.id)

    assert shown == made
    assert [item.content[0].text for item in items] == ["Say hello."]
    with pytest.raises(openai.NotFoundError):
        kept.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError):
        kept.responses.create(model=CHAT, input="x", previous_response_id=made.id)


def test_what_shall_not_be_stored_is_not(kept):
    made = kept.responses.create(
        model=CHAT, input="A secret.", store=False, temperature=0, max_output_tokens=4
    )

    with pytest.raises(openai.NotFoundError):
        kept.responses.retrieve(made.id)


def test_an_id_of_nobody_is_refused(kept):
    for previous in ("resp_" + "0" * 32, "nothing", "resp_../../admin"):
        with pytest.raises(openai.BadRequestError) as refused:
            kept.responses.create(model=CHAT, input="x", previous_response_id=previous)
        assert refused.value.body["param"] == "previous_response_id"
