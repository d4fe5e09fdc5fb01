"""What every store does with the secrets of providers, sealed. Part of `conformance_store`."""

import pytest
from msgspec.structs import replace

from pilothouse.domain.errors import NotFound
from pilothouse.domain.provider_secret import SealedSecret
from pilothouse.ports.store import Store, UnitOfWork

CLOUD = SealedSecret(
    name="cloud",
    team="",
    host="api.example.com",
    sealed=b"\x00\xff sealed",
    created_at=1.5,
    changed_at=2.5,
)


class SecretsConformance:
    def test_a_secret_comes_back_as_it_was_sealed(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.secrets.all() == []
            unit.secrets.put(CLOUD)
        with store.unit() as unit:
            assert unit.secrets.all() == [CLOUD]

    def test_secrets_are_told_by_name(self, store: Store) -> None:
        first, last = replace(CLOUD, name="a"), replace(CLOUD, name="z", team="red", host="gpu-1:8000")
        with store.unit() as unit:
            for one in (last, CLOUD, first):
                unit.secrets.put(one)
        with store.unit() as unit:
            assert unit.secrets.all() == [first, CLOUD, last]

    def test_the_newest_value_of_a_name_stands_for_the_others(self, store: Store) -> None:
        changed = replace(CLOUD, sealed=b"another", host="other.example.com", changed_at=9.0)
        with store.unit() as unit:
            unit.secrets.put(CLOUD)
        with store.unit() as unit:
            unit.secrets.put(changed)
        with store.unit() as unit:
            assert unit.secrets.all() == [changed]

    def test_what_was_removed_is_gone_and_cannot_be_removed_again(self, store: Store) -> None:
        other = replace(CLOUD, name="other")
        with store.unit() as unit:
            unit.secrets.put(CLOUD)
            unit.secrets.put(other)
        with store.unit() as unit:
            unit.secrets.remove("cloud")
        with store.unit() as unit:
            assert unit.secrets.all() == [other]
        with pytest.raises(NotFound), store.unit() as unit:
            unit.secrets.remove("cloud")

    def test_a_unit_that_fails_changes_no_secret(self, store: Store) -> None:
        with store.unit() as unit:
            unit.secrets.put(CLOUD)
        with pytest.raises(NotFound), store.unit() as unit:
            _put_and_fail(unit)
        with store.unit() as unit:
            assert unit.secrets.all() == [CLOUD]


def _put_and_fail(unit: UnitOfWork) -> None:
    unit.secrets.put(replace(CLOUD, sealed=b"never"))
    unit.secrets.remove("none")
