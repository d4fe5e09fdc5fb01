"""A secret that no log line, error, JSON document or pickle can hold."""

import hmac
from typing import NoReturn, SupportsIndex


class Secret(str):
    """
    A string whose text is `***`; the value is only behind `reveal()`.

    It is a `str`, so that whatever prints, formats or encodes it gets the
    asterisks and no encoder needs to know it. Pickling and copying are refused.
    """

    __slots__ = ("_value",)
    _value: str

    def __new__(cls, value: str) -> "Secret":
        made = super().__new__(cls, "***")
        made._value = value
        return made

    def reveal(self) -> str:
        """The value. Use it in the expression that needs it; never store or pass it on."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        """Constant-time, and only with another secret: a plain string never equals one."""
        if not isinstance(other, Secret):
            return False
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied; pass the object itself")
