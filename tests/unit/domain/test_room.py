"""Room on the disk."""

import pytest

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.room import KEPT_FREE_BYTES, check_room


def test_what_fits_may_come() -> None:
    check_room(1000, 1000 + KEPT_FREE_BYTES, what="it", where="here")


def test_what_does_not_fit_is_told_with_the_arithmetic() -> None:
    with pytest.raises(OperationFailed) as caught:
        check_room(1_000_000_000, 500_000_000, what="the model", where="/data")

    assert "the model needs 1000 MB, and 268 MB stay free" in caught.value.message
    assert "1268 MB in all, but /data has 500 MB. Free 768 MB" in caught.value.message
