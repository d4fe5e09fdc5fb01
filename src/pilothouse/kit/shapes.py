"""
Does a plain value have the shape of a msgspec type? Every fault, each with its path.

msgspec itself stops at the first fault, and names a place as `$.a[...]`; people
who edit a file want all of them, with the nearest valid name. What is written
without quotes is taken as text where text belongs (`off`, `1.10`), as everybody
means it who does not know YAML by heart.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, inspect

from pilothouse.kit.documents import Path

SHOWN_CHARS = 64


class Misfit(Struct, frozen=True):
    """A fault and where it is. `of_key`: the key itself is at fault, not its value."""

    path: Path
    text: str
    of_key: bool = False


def fit(value: Any, shape: type, texts: Mapping[Path, str]) -> tuple[Any, list[Misfit]]:
    """
    The value as `shape` wants it, and all that keeps it from being one.

    Args:
        texts: What was written, for values that may have been meant as text.
    """
    fitting = _Fitting(texts)
    fitted = fitting.fit(value, inspect.type_info(shape), ())
    return fitted, fitting.misfits


class _Fitting:
    def __init__(self, texts: Mapping[Path, str]) -> None:
        self._texts = texts
        self.misfits: list[Misfit] = []

    def fit(self, value: Any, shape: inspect.Type, path: Path) -> Any:
        match shape:
            case inspect.StructType():
                return self._struct(value, shape, path)
            case inspect.DictType():
                if not isinstance(value, dict):
                    return self._wrong(value, shape, path)
                return {key: self.fit(one, shape.value_type, (*path, key)) for key, one in value.items()}
            case inspect.ListType() | inspect.VarTupleType():
                if not isinstance(value, list):
                    return self._wrong(value, shape, path)
                return [self.fit(one, shape.item_type, (*path, i)) for i, one in enumerate(value)]
            case inspect.UnionType():
                return self._union(value, shape, path)
            case inspect.LiteralType():
                return self._literal(value, shape, path)
            case _:
                return self._plain(value, shape, path)

    def _struct(self, value: Any, shape: inspect.StructType, path: Path) -> Any:
        if not isinstance(value, dict):
            return self._wrong(value, shape, path)
        fields = {one.encode_name: one for one in shape.fields}
        made = {}
        for name, one in value.items():
            if name in fields:
                made[name] = self.fit(one, fields[name].type, (*path, name))
            elif shape.forbid_unknown_fields:
                text = f"unknown field `{name[:SHOWN_CHARS]}`{near(name, fields)}"
                self.misfits.append(Misfit((*path, name), text, of_key=True))
        for name, field in fields.items():
            if field.required and name not in value:
                self.misfits.append(Misfit(path, f"the field `{name}` is missing"))
        return made

    def _union(self, value: Any, shape: inspect.UnionType, path: Path) -> Any:
        """The member that takes it; else the faults of the one that comes nearest."""
        best: tuple[Any, list[Misfit]] | None = None
        for member in sorted(shape.types, key=lambda one: isinstance(one, inspect.NoneType), reverse=True):
            trial = _Fitting(self._texts)
            fitted = trial.fit(value, member, path)
            if not trial.misfits:
                return fitted
            is_first = best is None or isinstance(member, inspect.StructType | inspect.DictType)
            if is_first and not isinstance(member, inspect.NoneType):
                best = fitted, trial.misfits
        fitted, misfits = best or (value, [])
        self.misfits += misfits
        return fitted

    def _literal(self, value: Any, shape: inspect.LiteralType, path: Path) -> Any:
        written = self._texts.get(path)
        for one in shape.values:
            if type(one) is type(value) and one == value:
                return value
            if written is not None and one == written:
                return written
        names = [str(one) for one in shape.values]
        hint = near(written or value, names) if len(names) > 1 else ""
        self.misfits.append(Misfit(path, f"{self._shown(value, path)} is none of {', '.join(names)}{hint}"))
        return value

    def _plain(self, value: Any, shape: inspect.Type, path: Path) -> Any:
        match shape:
            case inspect.StrType():
                if not isinstance(value, str) and value is not None and path in self._texts:
                    return self._texts[path]
                is_right = isinstance(value, str)
            case inspect.BoolType():
                is_right = isinstance(value, bool)
            case inspect.IntType():
                is_right = isinstance(value, int) and not isinstance(value, bool)
                if is_right and shape.ge is not None and value < shape.ge:
                    self.misfits.append(Misfit(path, f"{value} is less than {shape.ge}"))
            case inspect.FloatType():
                is_right = isinstance(value, int | float) and not isinstance(value, bool)
            case inspect.NoneType():
                is_right = value is None
            case _:
                is_right = True  # another type is left to msgspec
        return value if is_right else self._wrong(value, shape, path)

    def _wrong(self, value: Any, shape: inspect.Type, path: Path) -> Any:
        wanted = _NAMES.get(type(shape), "what belongs here")
        self.misfits.append(Misfit(path, f"{self._shown(value, path)} is not {wanted}"))
        return value

    def _shown(self, value: Any, path: Path) -> str:
        return self._texts.get(path, show(value)) if isinstance(value, bool) else show(value)


_NAMES: dict[type, str] = {
    inspect.StructType: "a mapping of fields",
    inspect.DictType: "a mapping from names",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.NoneType: "null",
}


def near(name: object, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or what there is where nothing is near."""
    names = sorted(known)
    found = difflib.get_close_matches(str(name)[:SHOWN_CHARS], names, n=1, cutoff=0.5)
    if found:
        return f"; did you mean `{found[0]}`?"
    return f"; there are: {', '.join(names[:20])}" if names else ""


def show(value: object) -> str:
    """A value for a message: short, and nothing of what is inside a mapping or list."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every path in a plain value, the root's first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from paths_of(one, (*path, key))
