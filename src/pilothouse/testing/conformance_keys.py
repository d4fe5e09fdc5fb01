"""
What every `ports.keys.Keys` does, whoever holds the keys.

Subclass `KeysConformance` in a test file and give it the fixture `keys`: a fresh
one, and `others`: one more that shares nothing with it.
"""

import pytest

from pilothouse.domain.errors import OperationFailed
from pilothouse.ports.keys import Keys

KEY = bytes(range(32))


class KeysConformance:
    def test_a_wrapped_key_comes_back(self, keys: Keys) -> None:
        wrapped = keys.wrap(KEY, context=b"journal")

        assert keys.unwrap(wrapped, context=b"journal") == KEY

    def test_a_wrapped_key_does_not_show_it(self, keys: Keys) -> None:
        assert KEY not in keys.wrap(KEY, context=b"journal")

    def test_wrapping_twice_gives_different_bytes(self, keys: Keys) -> None:
        assert keys.wrap(KEY, context=b"c") != keys.wrap(KEY, context=b"c")

    def test_another_context_does_not_unwrap(self, keys: Keys) -> None:
        wrapped = keys.wrap(KEY, context=b"team-a")

        with pytest.raises(OperationFailed):
            keys.unwrap(wrapped, context=b"team-b")

    def test_any_altered_byte_does_not_unwrap(self, keys: Keys) -> None:
        wrapped = keys.wrap(KEY, context=b"c")

        for at in range(len(wrapped)):
            altered = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
            with pytest.raises(OperationFailed):
                keys.unwrap(altered, context=b"c")

    def test_garbage_does_not_unwrap(self, keys: Keys) -> None:
        for garbage in (b"", b"\x01", b"\x01\xff", bytes(100)):
            with pytest.raises(OperationFailed):
                keys.unwrap(garbage, context=b"c")

    def test_keys_of_somebody_else_do_not_unwrap(self, keys: Keys, others: Keys) -> None:
        wrapped = keys.wrap(KEY, context=b"c")

        with pytest.raises(OperationFailed):
            others.unwrap(wrapped, context=b"c")

    def test_after_retiring_a_new_key_wraps_and_the_old_still_unwraps(self, keys: Keys) -> None:
        old = keys.current_id()
        wrapped = keys.wrap(KEY, context=b"c")

        keys.retire(old)

        assert keys.current_id() != old
        assert keys.unwrap(wrapped, context=b"c") == KEY
        assert keys.unwrap(keys.wrap(KEY, context=b"c"), context=b"c") == KEY

    def test_retiring_twice_is_the_same_as_once(self, keys: Keys) -> None:
        old = keys.current_id()
        keys.retire(old)
        new = keys.current_id()

        keys.retire(old)

        assert keys.current_id() == new

    def test_retiring_an_unknown_key_is_an_error(self, keys: Keys) -> None:
        with pytest.raises(OperationFailed, match="nobody"):
            keys.retire("nobody")
