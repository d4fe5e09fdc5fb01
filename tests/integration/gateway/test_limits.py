"""Limits and budgets on the data plane: real requests, an engine by script, pools in this process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack

import msgspec
import openai
import pytest

from gateway_rig import (
    DEVELOPER,
    KEYS,
    OTHER_TEAM,
    House,
    endpoint_entry,
    house,
    house_in_thread,
    key,
    replica_entry,
    snapshot,
)
from http1_rig import Answer
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.limits import Limits
from pilothouse.domain.price import Price
from pilothouse.domain.snapshot import DeploymentEntry, Snapshot, TeamEntry
from pilothouse.domain.used_tokens import Usage
from watched_engine import WatchedEngine, endless

DEAR = Price(input=1_000_000, output=1_000_000)
"""A millionth of a dollar a token."""


def limited(
    *,
    of_key: Limits = Limits(),  # noqa: B008 - frozen
    of_team: Limits = Limits(),  # noqa: B008 - frozen
    of_endpoint: Limits = Limits(),  # noqa: B008 - frozen
    per_subject: Limits = Limits(),  # noqa: B008 - frozen
    price: Price | None = None,
) -> Snapshot:
    keys = dict(KEYS)
    keys[DEVELOPER] = msgspec.structs.replace(keys[DEVELOPER], limits=of_key)
    made = snapshot(
        replica_entry(),
        keys=keys,
        endpoints=(endpoint_entry(limits=of_endpoint, per_subject=per_subject),),
        deployments=(DeploymentEntry(name="chat", phase="ready", price=price),),
    )
    return msgspec.structs.replace(made, teams={"a": TeamEntry(limits=of_team)} if of_team else {})


def error_of(answer: Answer) -> dict[str, str]:
    found: dict[str, str] = json.loads(answer.body)["error"]
    return found


async def statuses(running: House, count: int, *, as_key: str = DEVELOPER) -> list[int]:
    return [(await running.ask(as_key=as_key)).status for _ in range(count)]


async def test_no_limit_means_no_header_and_no_cost() -> None:
    async with house() as running:
        answer = await running.ask()

    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    assert running.records[0].cost_micro_usd == 0
    assert running.book.open == 0


async def test_a_rate_is_refused_beyond_its_limit_with_the_time_to_wait() -> None:
    async with house(served=limited(of_key=Limits(rpm=2))) as running:
        answers = [await running.ask() for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[0].headers["x-ratelimit-reset-requests"] == "30s"
    assert 25 <= int(answers[2].headers["retry-after"]) <= 30
    assert error_of(answers[2])["code"] == "rate_limit_exceeded"
    assert DEVELOPER in error_of(answers[2])["message"]
    assert running.codes == ["ok", "ok", "rate_limit_exceeded"]


async def test_the_first_request_of_a_limit_waits_for_pools_that_are_slow() -> None:
    served = limited(of_key=Limits(rpm=2), of_endpoint=Limits(rpm=100))
    async with house(served=served) as running:
        before = await statuses(running, 1, as_key=OTHER_TEAM)
        running.ledger.delay_s = 0.25
        seen = await statuses(running, 3)

    assert before == [200]
    assert seen == [200, 200, 429]


async def test_the_tightest_of_all_scopes_counts() -> None:
    served = limited(of_key=Limits(rpm=5), of_team=Limits(rpm=3), of_endpoint=Limits(rpm=4))
    async with house(served=served) as running:
        mine = await statuses(running, 4)
        others = await statuses(running, 2, as_key=OTHER_TEAM)

    assert mine == [200, 200, 200, 429]
    assert others == [200, 429]  # the refusal of the team took nothing from the endpoint


async def test_each_subject_has_its_own_limit() -> None:
    async with house(served=limited(per_subject=Limits(rpm=1))) as running:
        first = await running.ask(headers=b"x-pilothouse-subject: ann\r\n")
        second = await running.ask(headers=b"x-pilothouse-subject: bob\r\n")
        third = await running.ask(headers=b"x-pilothouse-subject: ann\r\n")
        nobody = await running.ask()

    assert [a.status for a in (first, second, third, nobody)] == [200, 200, 429, 200]
    assert "ann" not in error_of(third)["message"]


async def test_tokens_are_settled_by_what_was_used_and_not_by_the_bound() -> None:
    async with house(served=limited(of_key=Limits(tpm=2000))) as running:
        answer = await running.ask(more=b',"max_tokens":1000')
        account = running.accounts[f"key:{DEVELOPER}|tpm"]

    record = running.records[0]
    assert answer.status == 200
    assert account.reserved == 0
    assert account.state().spent == record.input_tokens + record.output_tokens > 0


async def test_a_budget_is_settled_with_the_cost_that_the_record_carries() -> None:
    served = limited(of_key=Limits(budget_micro_usd=5000), price=DEAR)
    async with house(served=served) as running:
        whole = await running.ask(more=b',"max_tokens":10')
        stream = await running.ask(more=b',"max_tokens":10,"stream":true')
        account = next(a for name, a in running.accounts.items() if "|budget|" in name)

    assert (whole.status, stream.status) == (200, 200)
    assert [r.cost_micro_usd for r in running.records] == [
        r.input_tokens + r.output_tokens for r in running.records
    ]
    assert account.state().spent == sum(r.cost_micro_usd for r in running.records) > 0
    assert account.reserved == 0


async def test_a_budget_that_does_not_cover_the_request_refuses_it() -> None:
    served = limited(of_team=Limits(budget_micro_usd=200), price=DEAR)
    async with house(served=served) as running:
        answer = await running.ask(more=b',"max_tokens":900')

    assert answer.status == 429
    assert error_of(answer)["code"] == "budget_exceeded"
    assert int(answer.headers["retry-after"]) >= 1
    assert running.book.open == 0


async def test_parallel_requests_are_bounded_and_a_slot_comes_back() -> None:
    gate = asyncio.Event()

    async def slow(_: GenerateRequest) -> AsyncIterator[Chunk]:
        await gate.wait()
        yield Chunk((Delta("Hi", 0, "stop"),), Usage(3, 1, 0))

    async with house(WatchedEngine(slow), limited(of_key=Limits(parallel=1))) as running:
        first = asyncio.create_task(running.ask())
        await running.until(lambda: running.state.inflight == 1)
        second = await running.ask()
        gate.set()
        await first
        third = await running.ask()

    assert (first.result().status, second.status, third.status) == (200, 429, 200)


async def test_a_hang_up_settles_once_and_frees_everything() -> None:
    served = limited(of_key=Limits(parallel=1, tpm=10_000, budget_micro_usd=10_000), price=DEAR)
    async with house(WatchedEngine(endless()), served) as running:
        async with running.asking(more=b',"stream":true,"max_tokens":500') as raw:
            await running.until(lambda: running.state.inflight == 1)
            await asyncio.sleep(0.03)
            raw.abort()
        await running.until(lambda: len(running.records) == 1)
        open_ones, accounts = running.book.open, dict(running.accounts)

    assert running.codes == ["client_closed"]
    assert open_ones == 0
    assert all(account.reserved == 0 for account in accounts.values())
    cost = running.records[0].cost_micro_usd
    assert running.records[0].output_tokens < cost < 200  # the prompt is charged by an estimate of its tokens


async def test_lost_pools_leave_what_was_leased_and_then_refuse_with_a_reason() -> None:
    served = limited(of_key=Limits(budget_micro_usd=300), price=DEAR)
    async with house(served=served) as running:
        first = await running.ask(more=b',"max_tokens":10')
        running.ledger.is_lost = True
        answers = [await running.ask(more=b',"max_tokens":10') for _ in range(30)]

    assert first.status == 200
    assert answers[0].status == 200
    assert answers[-1].status == 503
    assert "out of reach" in error_of(answers[-1])["message"]


async def test_alone_a_worker_goes_on_with_its_rates_when_the_controller_is_lost() -> None:
    async with house(served=limited(of_key=Limits(rpm=60_000))) as running:
        first = await running.ask()
        running.ledger.is_lost = True
        running.accounts[f"key:{DEVELOPER}|rpm"].available = 2.0  # as if the rest were spent
        seen = []
        for _ in range(5):
            seen += await statuses(running, 1)
            await asyncio.sleep(0.01)  # its rate gives back ten in that time
        was_lost = running.leases.is_lost
        running.ledger.restart("two")
        running.ledger.is_lost = False
        await running.until(lambda: not running.leases.is_lost)
        await asyncio.sleep(0.1)  # the new pools begin empty: what was used meanwhile they do not know
        after = await running.ask()

    assert first.status == after.status == 200
    assert set(seen) == {200}
    assert was_lost
    assert running.leases.life == 2


async def test_new_limits_take_effect_with_the_next_snapshot() -> None:
    async with house(served=limited(of_key=Limits(rpm=1))) as running:
        before = await statuses(running, 2)
        running.state.apply(limited(of_key=Limits(rpm=10_000)))
        await asyncio.sleep(0.05)
        after = await statuses(running, 2)
        running.state.apply(limited())
        unlimited = await running.ask()

    assert (before, after) == ([200, 429], [200, 200])
    assert "x-ratelimit-limit-requests" not in unlimited.headers


def test_the_openai_client_sees_a_rate_limit_error_with_the_time_to_wait() -> None:
    with house_in_thread(served=limited(of_key=Limits(rpm=1))) as running, ExitStack() as stack:
        client = stack.enter_context(
            openai.OpenAI(base_url=running.url, api_key=key(DEVELOPER), max_retries=0)
        )
        first = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": "Hi"}]
        )
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hi"}])

    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) > 50
