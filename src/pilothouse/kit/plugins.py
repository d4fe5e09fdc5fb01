"""
Parts that are found by name: our own from a table, other people's by entry point.

Both are written alike, `package.module:attribute`, so that what is built in could
as well be somebody else's. The one idea: a name is looked up when it is needed,
so that nobody pays for what is not used, and a broken part breaks itself alone.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class BrokenPlugin(KeyError):
    """It is there and cannot be used; the message says why. For `get` it is as good as not there."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError shows a key, in quotes


class Plugins(Mapping[str, T], Generic[T]):
    """
    Parts by name, each made once, at its first use.

    Args:
        group: Of the entry points, such as `pilothouse.engine`.
        own: `module:attribute` by name. Nobody else's part takes one of these names.
        make: What becomes of a loaded attribute, such as calling the class.

    Raises:
        BrokenPlugin: When one is looked up that cannot be imported or made.
    """

    def __init__(self, group: str, own: Mapping[str, str], make: Callable[[Any], T]) -> None:
        self._group = group
        self._own = own
        self._make = make
        self._made: dict[str, T] = {}
        self._others: dict[str, EntryPoint] | None = None

    def __getitem__(self, name: str) -> T:
        if name not in self._made:
            point = self._point(name)
            if point is None:
                raise KeyError(name)
            try:
                self._made[name] = self._make(point.load())
            except Exception as exc:
                raise BrokenPlugin(
                    f"{name} ({point.value}) cannot be used: {type(exc).__name__}: {exc}"
                ) from exc
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in sorted(self._found()) if name not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._found()

    def _point(self, name: str) -> EntryPoint | None:
        if name in self._own:
            return EntryPoint(name, self._own[name], self._group)
        return self._found().get(name)

    def _found(self) -> dict[str, EntryPoint]:
        """Of this interpreter's packages; read once, for it takes milliseconds."""
        if self._others is None:
            self._others = {point.name: point for point in entry_points(group=self._group)}
        return self._others
