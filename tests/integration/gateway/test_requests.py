"""What a caller gets: the answer, or one typed error; and what is on record of it."""

import asyncio
import json
import time

import pytest

from gateway_rig import (
    ADMIN,
    AUDITOR,
    CHAT,
    DEVELOPER,
    EXPIRED,
    OTHER_TEAM,
    SCOPED,
    SECRET,
    UNKNOWN,
    Full,
    House,
    endpoint_entry,
    house,
    key,
    key_entry,
    replica_entry,
    snapshot,
)
from http1_rig import Answer
from pilothouse.domain.errors import ContextLengthExceeded, EngineUnavailable, Overloaded, UpstreamError
from pilothouse.domain.snapshot import DeploymentEntry, Snapshot
from watched_engine import WatchedEngine, fails, words

VECTORS = endpoint_entry("vectors", tasks=("embedding",))
MANY = snapshot(
    replica_entry(), replica_entry("vectors-0", "vectors"), endpoints=(endpoint_entry("chat"), VECTORS)
)


def error_of(answer: Answer) -> dict[str, str | None]:
    said = json.loads(answer.body)
    assert list(said) == ["error"]
    assert set(said["error"]) == {"message", "type", "param", "code"}
    return said["error"]


def outcome(answer: Answer) -> tuple[int, str | None]:
    return answer.status, error_of(answer)["code"]


# answers


async def test_a_chat_is_answered_and_recorded():
    async with house() as h:
        answer = await h.ask(more=b',"max_tokens":5,"temperature":0.5')

        said = json.loads(answer.body)
        (record,) = h.records
        (request, _), *more = h.engines["chat-0"].asked

    assert answer.status == 200
    assert said["choices"][0]["message"]["content"] == "Hello world"
    assert said["choices"][0]["finish_reason"] == "stop"
    assert said["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert (record.code, record.team, record.key_id, record.endpoint) == ("ok", "a", DEVELOPER, "chat")
    assert (record.input_tokens, record.output_tokens, record.streamed) == (7, 2, False)
    assert (record.deployment, record.replica, record.finish_reason) == ("chat", "chat-0", "stop")
    assert (request.max_tokens, request.sampling.temperature) == (5, 0.5)
    assert not more


async def test_a_completion_and_embeddings_are_answered_and_recorded():
    async with house(served=MANY) as h:
        text = await h.ask("/v1/completions", b'{"model":"chat","prompt":"once"}')
        vectors = await h.ask("/v1/embeddings", b'{"model":"vectors","input":["a","bcd"]}')

        assert json.loads(text.body)["choices"][0]["text"] == "Hello world"
        assert [item["embedding"][0] for item in json.loads(vectors.body)["data"]] == [1.0, 3.0]
        assert [(record.kind, record.code) for record in h.records] == [
            ("completion", "ok"),
            ("embedding", "ok"),
        ]
        assert h.records[1].input_tokens == 4


@pytest.mark.parametrize("is_whole", [True, False])
async def test_several_choices_come_in_order_whatever_the_engine_can(is_whole: bool):
    async with house(WatchedEngine(whole=is_whole)) as h:
        said = json.loads((await h.ask(more=b',"n":3')).body)

    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in said["choices"]} == {"Hello world"}


async def test_new_tokens_are_cut_to_the_endpoints_bound():
    served = snapshot(replica_entry(), endpoints=(endpoint_entry("chat", max_tokens=10),))

    async with house(served=served) as h:
        await h.ask(more=b',"max_tokens":5000')
        await h.ask()

        assert [request.max_tokens for request, _ in h.engines["chat-0"].asked] == [10, 10]


async def test_content_is_recorded_only_where_the_endpoint_says_so():
    open_, closed = endpoint_entry("chat"), endpoint_entry("silent", records="none")
    served = snapshot(replica_entry(), replica_entry("s", "silent"), endpoints=(open_, closed))

    async with house(served=served) as h:
        await h.ask()
        await h.ask(body=CHAT % (b"silent", b""))

        kept, nothing = h.contents
        assert kept.answers == ["Hello world"]
        assert kept.request == CHAT % (b"chat", b"")
        assert nothing is None


async def test_the_answers_id_leads_to_its_record():
    async with house() as h:
        answer = await h.ask()

        assert json.loads(answer.body)["id"] == "chatcmpl-" + h.records[0].id.removeprefix("req_")
        assert answer.headers["x-request-id"] == h.records[0].id


async def test_a_person_is_known_by_header_or_body_and_only_as_a_hash():
    async with house() as h:
        await h.ask(more=b',"user":"zo\xc3\xab"')
        await h.ask(headers="X-Pilothouse-Subject: zoë\r\n".encode())
        await h.ask(more=b',"user":"zo\xc3\xab"', as_key=OTHER_TEAM)
        await h.ask(headers=b"X-Pilothouse-Subject: \r\n")
        await h.ask()
        by_body, by_header, elsewhere, empty, nobody = [record.subject_hash for record in h.records]

    assert by_body == by_header, "one person must be found again, however he was named"
    assert by_body
    assert elsewhere != by_body
    assert empty == nobody == ""


async def test_requests_arrive_as_demand_for_endpoints_that_the_caller_may_have():
    async with house() as h:
        await h.ask()
        await h.ask(as_key=SCOPED)
        for n in range(20):
            await h.ask(body=CHAT % (b"invented%d" % n, b""))
            await h.ask(body=CHAT % (b"invented%d" % n, b""))

        assert h.state.demand == {"chat": 1}


async def test_demand_counts_where_no_replica_is_there_yet():
    asleep = DeploymentEntry(name="chat", phase="stopped", reason="it sleeps", retry_after_s=3.0)
    served = snapshot(replica_entry("x", "other"), endpoints=(endpoint_entry("chat"),), deployments=(asleep,))

    async with house(served=served) as h:
        answer = await h.ask()

        assert outcome(answer) == (503, "engine_unavailable")
        assert answer.headers["retry-after"] == "3"
        assert "it sleeps" in error_of(answer)["message"]
        assert h.state.demand == {"chat": 1}


# refusals


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        f"Bearer {key(UNKNOWN)}",
        f"Bearer {key(EXPIRED)}",
        f"Bearer {key(DEVELOPER)[:-1]}0",
        "Bearer ",
        "Bearer ph_' OR '1'='1",
        "Basic dXNlcjpwYXNz",
    ],
    ids=["none", "unknown", "expired", "mistyped", "empty", "SQL", "basic"],
)
async def test_a_wrong_key_is_401_and_leaves_no_trace(authorization: str | None):
    line = f"authorization: {authorization}\r\n".encode() if authorization else b""

    async with house() as h:
        answers = [
            await h.ask(path, as_key=None, headers=line, method=method)
            for path, method in (
                ("/v1/chat/completions", "POST"),
                ("/v1/embeddings", "POST"),
                ("/v1/models", "GET"),
                ("/v1/models/chat", "GET"),
                ("/v1/responses", "POST"),
            )
        ]

        assert {outcome(answer) for answer in answers} == {(401, "invalid_api_key")}
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
        assert h.records == []
        assert h.engines["chat-0"].asked == []


async def test_a_key_with_a_nul_never_reaches_anybody():
    async with house() as h:
        answer = await h.ask(as_key=None, headers=b"authorization: Bearer ph_\x00\r\n")

    assert answer.status == 400
    assert json.loads(answer.body)["error"]["code"] == "invalid_request"


async def test_a_revoked_key_is_401_from_the_next_snapshot_on():
    async with house() as h:
        assert (await h.ask()).status == 200

        h.state.apply(snapshot(replica_entry(), keys={ADMIN: key_entry(ADMIN)}))

        assert outcome(await h.ask()) == (401, "invalid_api_key")


async def test_without_a_snapshot_nobodys_key_is_called_wrong():
    async with house(served=Snapshot()) as h:
        chat, models = await h.ask(), await h.ask("/v1/models", method="GET")

        assert outcome(chat) == outcome(models) == (503, "engine_unavailable")
        assert chat.headers["retry-after"]
        assert h.records == []


BAD = (400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "body", "as_key", "expected"),
    [
        ("/v1/chat/completions", CHAT % (b"nope", b""), DEVELOPER, (404, "model_not_found")),
        ("/v1/chat/completions", CHAT % (b"chat", b""), SCOPED, (404, "model_not_found")),
        ("/v1/chat/completions", CHAT % (b"chat", b""), AUDITOR, (403, "permission_denied")),
        ("/v1/chat/completions", CHAT % (b"vectors", b""), DEVELOPER, (501, "not_supported")),
        ("/v1/embeddings", b'{"model":"chat","input":"x"}', DEVELOPER, (501, "not_supported")),
        ("/v1/chat/completions", b"not json", DEVELOPER, BAD),
        ("/v1/chat/completions", b"", DEVELOPER, BAD),
        ("/v1/chat/completions", CHAT % (b"chat", b',"n":5'), DEVELOPER, BAD),
        (
            "/v1/chat/completions",
            CHAT % (b"chat", b',"temperature":NaN'),
            DEVELOPER,
            (400, "invalid_request"),
        ),
        ("/v1/chat/completions", b'{"model":"chat","messages":[]}', DEVELOPER, BAD),
        ("/v1/chat/completions", CHAT % (b"chat", b',"tools":[]'), DEVELOPER, BAD),
        ("/v1/chat/completions", CHAT % (b"chat", b',"functions":[]'), DEVELOPER, (501, "not_supported")),
        ("/v1/chat/completions", b"[" * 1_000_000, DEVELOPER, BAD),
        ("/v1/moderations", b"{}", DEVELOPER, (501, "not_supported")),
        ("/v1/images/abc", b"{}", DEVELOPER, (501, "not_supported")),
        ("/v2/chat", b"{}", DEVELOPER, (404, "not_found")),
    ],
)
async def test_a_refusal_is_typed_and_reaches_no_engine(path, body, as_key, expected):
    async with house(served=MANY) as h:
        answer = await h.ask(path, body, as_key=as_key)

        assert outcome(answer) == expected
        assert all(not engine.asked for engine in h.engines.values())
        assert h.is_quiet
        assert h.codes == ([] if path in ("/v1/moderations", "/v1/images/abc", "/v2/chat") else [expected[1]])


async def test_a_wrong_method_says_which_are_right():
    async with house() as h:
        answer = await h.ask(method="GET")

    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ContextLengthExceeded("the prompt has 9 tokens", param="messages"),
            (400, "context_length_exceeded"),
        ),
        (UpstreamError("cut"), (502, "upstream_error")),
        (EngineUnavailable("gone", retry_after_s=2.0), (503, "engine_unavailable")),
        (Overloaded("full", retry_after_s=1.0), (503, "overloaded")),
    ],
)
@pytest.mark.parametrize("more", [b"", b',"stream":true'], ids=["whole", "streamed"])
async def test_an_engines_error_before_its_first_word_is_an_answer_of_its_own(error, expected, more):
    async with house(WatchedEngine(fails(error))) as h:
        answer = await h.ask(more=more)

        assert outcome(answer) == expected
        assert answer.headers["content-type"] == "application/json"
        assert ("retry-after" in answer.headers) == (error.retry_after_s is not None)
        assert h.codes == [expected[1]]
        assert h.is_quiet


async def test_a_defect_is_a_500_that_tells_nothing_and_is_logged():
    async with house(WatchedEngine(fails(RuntimeError("the inner secret")))) as h:
        answer = await h.ask()

        assert outcome(answer) == (500, "internal")
        assert b"inner secret" not in answer.body
        assert h.codes == ["internal"]
        assert h.is_quiet
        assert answer.headers["x-request-id"] in h.log
        assert "RuntimeError" in h.log


async def test_an_answer_without_a_choice_is_the_engines_fault():
    engine = WatchedEngine(whole=True)

    async def nothing(request, placement, *, deadline_s, timeouts):
        raise UpstreamError("the engine's answer holds no choice")

    engine.complete = nothing
    async with house(engine) as h:
        assert outcome(await h.ask()) == (502, "upstream_error")


async def test_a_worker_goes_on_after_any_refusal_on_the_same_connection():
    async with house() as h, h.asking(more=b',"n":9') as raw:
        assert (await raw.answer()).status == 400
        await raw.send(h.request())
        assert (await raw.answer()).status == 200
        await raw.send(h.request(as_key=None))
        assert (await raw.answer()).status == 401
        await raw.send(h.request("/nowhere"))
        assert (await raw.answer()).status == 404
        await raw.send(h.request(method="PATCH", body=b"{}"))
        assert (await raw.answer()).status == 405
        await raw.send(h.request())
        assert (await raw.answer()).status == 200


# what every answer carries


EVERY = [
    ("/v1/chat/completions", "POST", {}),
    ("/v1/chat/completions", "POST", {"more": b',"stream":true'}),
    ("/v1/chat/completions", "POST", {"more": b',"n":9'}),
    ("/v1/chat/completions", "POST", {"as_key": None}),
    ("/v1/chat/completions", "POST", {"as_key": AUDITOR}),
    ("/v1/chat/completions", "GET", {}),
    ("/v1/chat/completions", "POST", {"body": b"x" * 5_000_000}),
    ("/v1/chat/completions", "POST", {"headers": b"x: " + b"y" * 40_000 + b"\r\n"}),
    ("/v1/chat/completions", "POST", {"headers": b"Transfer-Encoding: chunked\r\n"}),
    ("/v1/models", "GET", {}),
    ("/v1/models/chat", "GET", {}),
    ("/v1/models/nope", "GET", {}),
    ("/v1/responses", "POST", {}),
    ("/nowhere", "GET", {}),
    ("/livez", "GET", {}),
    ("/readyz", "GET", {}),
    ("/metrics", "GET", {}),
    ("/admin/v1/keys", "GET", {}),
]


@pytest.mark.parametrize(("path", "method", "more"), EVERY, ids=lambda value: str(value)[:40])
async def test_every_answer_has_an_id_and_says_what_pilothouse_took(path, method, more):
    async with house() as h:
        answer = await h.ask(path, method=method, **more)

    assert answer.headers["x-request-id"].startswith("req_")
    assert int(answer.headers["x-pilothouse-overhead-us"]) >= 0
    assert answer.headers["content-type"].startswith(("application/json", "text/event-stream"))
    if answer.status >= 400:
        assert error_of(answer)["code"]


async def test_the_overhead_leaves_out_what_the_engine_took():
    async with house(WatchedEngine(words("a", "b", pause_s=0.15))) as h:
        whole = await h.ask()
        streamed = await h.ask(more=b',"stream":true')

        for answer in (whole, streamed):
            assert 0 < int(answer.headers["x-pilothouse-overhead-us"]) < 50_000
        assert all(record.duration_ms > 290 for record in h.records)


async def test_the_overhead_leaves_out_the_wait_for_a_place():
    served = snapshot(replica_entry(max_inflight=1))

    async with house(WatchedEngine(words("a", pause_s=0.2)), served) as h:
        answers = await asyncio.gather(h.ask(), h.ask())

    assert all(int(answer.headers["x-pilothouse-overhead-us"]) < 50_000 for answer in answers)


# models, health


async def test_models_are_those_that_the_key_may_use():
    served = snapshot(
        replica_entry(),
        replica_entry("e", "elsewhere"),
        endpoints=(endpoint_entry("chat"), endpoint_entry("elsewhere")),
    )

    async with house(served=served) as h:
        everything = json.loads((await h.ask("/v1/models", method="GET")).body)
        scoped = json.loads((await h.ask("/v1/models", method="GET", as_key=SCOPED)).body)
        one = json.loads((await h.ask("/v1/models/elsewhere", method="GET", as_key=SCOPED)).body)
        hidden = await h.ask("/v1/models/chat", method="GET", as_key=SCOPED)
        absent = await h.ask("/v1/models/nope", method="GET", as_key=SCOPED)

    assert [model["id"] for model in everything["data"]] == ["chat", "elsewhere"]
    assert [model["id"] for model in scoped["data"]] == ["elsewhere"]
    assert one == {
        "id": "elsewhere",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "pilothouse",
    }
    assert outcome(hidden) == outcome(absent) == (404, "model_not_found")
    assert hidden.body.replace(b"chat", b"nope") == absent.body


async def test_liveness_never_asks_for_anything():
    async with house(served=Snapshot()) as h:
        answer = await h.ask("/livez", method="GET", as_key=None)

    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


async def ready(h: House) -> tuple[int, str, str]:
    answer = await h.ask("/readyz", method="GET", as_key=None)
    said = json.loads(answer.body)
    return answer.status, said["status"], "; ".join(said["reasons"])


async def test_readiness_says_what_is_missing():
    async with house(served=Snapshot()) as h:
        assert await ready(h) == (503, "not_ready", "no snapshot from the controller yet")

        h.state.apply(Snapshot(revision=1))
        assert await ready(h) == (503, "not_ready", "no endpoint is declared")

        loading = DeploymentEntry(name="chat", phase="starting", reason="the model is loading")
        h.state.apply(
            snapshot(replica_entry("x", "other"), endpoints=(endpoint_entry("chat"),), deployments=(loading,))
        )
        status, _, reasons = await ready(h)
        assert status == 503
        assert "the model is loading" in reasons

        h.state.apply(snapshot(replica_entry()))
        assert await ready(h) == (200, "ready", "")

        h.feed.disconnected_since = time.time() - 12
        status, _, reasons = await ready(h)
        assert status == 200, "what is known goes on being served"
        assert "12 s" in reasons


# a full journal


@pytest.mark.parametrize("more", [b"", b',"stream":true'], ids=["whole", "streamed"])
async def test_with_no_room_for_records_work_is_refused_before_it_begins(more):
    async with house() as h:
        h.journal.has_no_room = True
        answer = await h.ask(more=more)

        assert outcome(answer) == (503, "store_unavailable")
        assert answer.headers["retry-after"]
        assert h.engines["chat-0"].asked == []
        assert h.is_quiet


async def test_with_no_room_for_records_work_is_done_and_counted_where_that_is_the_setting():
    async with house(when_full="serve") as h:
        h.journal.is_full = True

        assert (await h.ask()).status == 200
        assert (await h.ask(more=b',"stream":true')).body.endswith(b"data: [DONE]\n\n")
        assert h.keeper.dropped == 2
        assert h.log.count("record_dropped") == 2


async def test_a_journal_that_fills_up_meanwhile_never_lets_an_answer_look_kept():
    async with house() as h:
        engine = h.engines["chat-0"]
        h.journal.has_room = lambda size: True
        h.journal.is_full = True
        whole = await h.ask()
        streamed = await h.ask(more=b',"stream":true')

        assert outcome(whole) == (503, "store_unavailable")
        assert b"[DONE]" not in streamed.body
        assert b'"code":"store_unavailable"' in streamed.body
        assert len(engine.asked) == 2
        assert h.is_quiet


async def test_where_power_loss_counts_the_end_waits_for_the_disk():
    async with house(waits_for_disk=True, served=MANY) as h:
        order: list[str] = []
        h.journal.on_append = lambda entry: order.append("appended")
        durable = h.journal.durable

        async def noted() -> None:
            await durable()
            order.append("on disk")

        h.journal.durable = noted
        for path, body in (
            ("/v1/chat/completions", None),
            ("/v1/chat/completions", CHAT % (b"chat", b',"stream":true')),
            ("/v1/embeddings", b'{"model":"vectors","input":"a"}'),
        ):
            await h.ask(path, body)
            order.append("answered")

    assert order == ["appended", "on disk", "answered"] * 3


@pytest.mark.parametrize("when_full", ["refuse", "serve"])
async def test_a_disk_that_fails_to_sync_is_told_as_that(when_full):
    async with house(waits_for_disk=True, when_full=when_full) as h:

        async def failing() -> None:
            raise Full("the disk failed to sync")

        h.journal.durable = failing
        whole = await h.ask()
        streamed = await h.ask(more=b',"stream":true')

        if when_full == "refuse":
            assert outcome(whole) == (503, "store_unavailable")
            assert b"[DONE]" not in streamed.body
            assert b'"code":"store_unavailable"' in streamed.body
        else:
            assert whole.status == 200
            assert streamed.body.endswith(b"data: [DONE]\n\n")
            assert h.keeper.dropped == 2


# secrets


async def test_no_secret_stands_in_a_log_line_or_an_error():
    async with house(WatchedEngine(fails(RuntimeError(f"Bearer {key(DEVELOPER)}")))) as h:
        bodies = [
            (await h.ask(path, body, as_key=as_key, headers=headers)).body
            for path in ("/v1/chat/completions", "/v1/models/x", f"/{key(DEVELOPER)}")
            for body in (None, b"junk " + SECRET.encode())
            for as_key in (DEVELOPER, UNKNOWN, None)
            for headers in (b"", b"x-api-key: " + key(OTHER_TEAM).encode() + b"\r\n")
        ]

        assert SECRET not in h.log
        shown = b"".join(body for body in bodies if b"there is nothing at" not in body)
        assert SECRET.encode() not in shown
