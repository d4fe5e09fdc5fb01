"""Several who declare at once: nobody's change is lost, and nobody overwrites unseen."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest
from msgspec.structs import replace

from control_fakes import TickingClock, model
from pilothouse.control.declarations import Declarations
from pilothouse.control.fitting import Fit
from pilothouse.domain.errors import Conflict, InvalidRequest
from pilothouse.domain.events import Occurrence
from pilothouse.domain.spec import DEFAULT_SPEC, ModelSpec, Spec
from pilothouse.domain.specedit import scaled, staged
from pilothouse.ports.store import StoredSpec, UnitOfWork
from pilothouse.testing.memory_store import MemoryStore
from spec_trees import ENGINES

T = TypeVar("T")


class House:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.told: list[int] = []
        self.happened: list[Occurrence] = []
        self.found = Fit()
        self.versions = [replace(model("assistant"), version=version) for version in ("2", "1")]
        self.declarations = Declarations(
            self.transact,
            TickingClock(),
            engines=ENGINES,
            targets={"local"},
            declared=lambda stored: self.told.append(stored.revision),
            versions=lambda: self.versions,
            fit=lambda spec, present: Fit() if spec == present else self.found,
            happened=self.happened.append,
        )

    async def transact(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        await asyncio.sleep(0)  # others come in between, as they do in front of a real store
        with self.store.unit(urgent=urgent) as unit:
            return work(unit)

    async def declare(self, spec: Spec, expected: int | None = None) -> StoredSpec:
        return await self.declarations.declare(spec, expected_revision=expected, author="k1")


@pytest.fixture
async def house() -> House:
    made = House()
    await made.declare(DEFAULT_SPEC, 0)
    return made


async def test_of_two_who_edit_the_same_revision_one_gets_a_conflict(house: House) -> None:
    edits = [
        house.declare(scaled(DEFAULT_SPEC, "smollm2", least=1, most=most), expected=1) for most in (2, 3)
    ]

    ended = await asyncio.gather(*edits, return_exceptions=True)

    assert sorted(type(one) for one in ended if isinstance(one, Exception)) == [Conflict]
    assert (await house.declarations.current()).revision == 2


async def test_small_changes_at_the_same_time_are_all_made(house: House) -> None:
    await house.declare(staged(DEFAULT_SPEC, "assistant", "first", version="1"))

    edits = [
        house.declarations.edit(
            lambda spec, stage=stage: staged(spec, "assistant", stage, version="2"),  # type: ignore[misc]
            expected_revision=None,
            author=stage,
        )
        for stage in ("a", "b")
    ]
    await asyncio.gather(*edits)

    stages = (await house.declarations.current()).spec.models["assistant"].stages
    assert stages == {"first": "1", "a": "2", "b": "2"}
    assert sorted(set(house.told)) == [1, 2, 3, 4]


async def test_a_small_change_of_a_revision_that_is_gone_is_a_conflict(house: House) -> None:
    await house.declare(scaled(DEFAULT_SPEC, "smollm2", least=1, most=2))

    with pytest.raises(Conflict, match="revision 2 runs, and this change was made from revision 1"):
        await house.declarations.edit(
            lambda spec: scaled(spec, "smollm2", least=1, most=3), expected_revision=1, author="k"
        )


async def test_a_moved_stage_is_told_with_who_moved_it(house: House) -> None:
    await house.declare(staged(DEFAULT_SPEC, "assistant", "production", version="1"))
    await house.declare(
        staged((await house.declarations.current()).spec, "assistant", "production", version="2")
    )

    moves = [one.message for one in house.happened if one.reason == "stage_moved"]
    assert moves == ["production: nothing -> 1, by k1", "production: 1 -> 2, by k1"]


async def test_a_version_that_is_not_here_is_refused_and_nothing_changes(house: House) -> None:
    with pytest.raises(InvalidRequest, match="'3' is not known; there are: 1, 2"):
        await house.declare(
            replace(DEFAULT_SPEC, models={**DEFAULT_SPEC.models, "assistant": ModelSpec(stages={"p": "3"})})
        )

    assert (await house.declarations.current()).revision == 1


async def test_every_revision_is_read_back_with_its_author(house: House) -> None:
    await house.declare(scaled(DEFAULT_SPEC, "smollm2", least=1, most=2))

    first = await house.declarations.revision(1)
    page = await house.declarations.revisions(cursor=None, limit=10)

    assert (first.spec, first.author) == (DEFAULT_SPEC, "k1")
    assert [one.revision for one in page.items] == [2, 1]


async def test_what_cannot_have_its_memory_is_refused_also_by_a_dry_run(house: House) -> None:
    house.found = Fit(faults=["deployments.smollm2: the model does not fit"])
    more = scaled(DEFAULT_SPEC, "smollm2", least=9, most=9)

    with pytest.raises(InvalidRequest, match="does not fit") as caught:
        await house.declare(more)
    with pytest.raises(InvalidRequest, match="does not fit"):
        await house.declarations.declare(more, expected_revision=None, author="k", dry_run=True)

    assert caught.value.faults == tuple(house.found.faults)
    assert (await house.declare(DEFAULT_SPEC)).revision == 1


async def test_what_may_not_have_it_is_declared_and_warned_of(house: House) -> None:
    house.found = Fit(warnings=["deployments: not all at once"])
    more = scaled(DEFAULT_SPEC, "smollm2", least=0, most=9)

    assert house.declarations.warnings(more) == house.found.warnings
    assert (await house.declare(more)).revision == 2


async def test_what_makes_no_sense_is_told_with_its_place_before_anybody_counts_memory(house: House) -> None:
    deployment = replace(DEFAULT_SPEC.deployments["smollm2"], engine_options={"slotz": 1})

    with pytest.raises(InvalidRequest, match=r"deployments.smollm2.engine_options.slotz: unknown field"):
        house.declarations.warnings(replace(DEFAULT_SPEC, deployments={"smollm2": deployment}))
