"""Which models of the catalogue fit a machine."""

import datetime as dt
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.catalogue import CATALOGUE, COMPILED_ON, CatalogueModel, suggest
from pilothouse.domain.model_name import check_name

PLENTY = 10**13


@pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model.name)
def test_an_entry_can_be_pulled_as_it_stands(model: CatalogueModel) -> None:
    assert check_name(model.name)
    assert re.fullmatch(r"hf:[\w.-]+/[\w.-]+/[\w./-]+\.gguf", model.source)
    assert model.licence
    bits = model.bytes * 8 / model.parameters
    assert 4 < bits < 9, "bytes and parameters must tell the same quantization"


def test_the_catalogue_is_dated_and_names_are_unique() -> None:
    assert dt.date.fromisoformat(COMPILED_ON)
    assert len({model.name for model in CATALOGUE}) == len(CATALOGUE)


def test_a_large_machine_is_suggested_the_largest_first() -> None:
    suggestions = suggest(PLENTY, PLENTY)

    assert all(one.fits and not one.reason for one in suggestions)
    assert suggestions[0].model.bytes == max(model.bytes for model in CATALOGUE)


def test_a_small_machine_is_told_why_not() -> None:
    suggestions = suggest(1_000_000_000, 500_000_000)

    assert not any(one.fits for one in suggestions)
    assert "needs about 1.6 GB of memory, 1.0 GB are available" in suggestions[0].reason
    assert "takes 0.6 GB on the disk, 0.5 GB are free" in suggestions[0].reason


def test_what_fits_stands_before_what_does_not() -> None:
    fits = [one.fits for one in suggest(4_000_000_000, PLENTY)]

    assert True in fits
    assert False in fits
    assert fits == sorted(fits, reverse=True)


@given(st.integers(0, PLENTY), st.integers(0, PLENTY), st.integers(0, PLENTY))
def test_more_memory_never_suggests_less(memory: int, more: int, disk: int) -> None:
    def fitting(memory_bytes: int) -> set[str]:
        return {one.model.name for one in suggest(memory_bytes, disk) if one.fits}

    assert fitting(memory) <= fitting(memory + more)
