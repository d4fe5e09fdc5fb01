"""
What changes between two specs, field by field, and what nothing but defaults says.

Pure. The one idea: both sides are compared as typed values, so that a default
that is written out and one that is left out are the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT, Struct

from pilothouse.domain.spec import Spec

Kind = Literal["added", "changed", "removed"]


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`path` is the field as in messages; what was added has no `before`, what was removed no `after`."""

    kind: Kind
    path: str
    before: Any = None
    after: Any = None


def changes(old: Spec, new: Spec) -> list[Change]:
    """Everything that is another in `new`, in the order of the file; none where both mean the same."""
    return list(_changes("", old, new))


def plain(value: Any) -> Any:
    """A value as it would be written in a file: without what says only the default."""
    if isinstance(value, Struct):
        return {
            field.encode_name: plain(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if not _is_default(field, getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return msgspec.to_builtins(value)


def _changes(path: str, old: Any, new: Any) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, Struct) and type(old) is type(new):
        for name in old.__struct_fields__:
            yield from _changes(_join(path, name), getattr(old, name), getattr(new, name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            here = _join(path, name)
            if name not in new:
                yield Change(kind="removed", path=here, before=plain(old[name]))
            elif name not in old:
                yield Change(kind="added", path=here, after=plain(new[name]))
            else:
                yield from _changes(here, old[name], new[name])
    else:
        yield Change(kind="changed", path=path, before=plain(old), after=plain(new))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    if field.default is not NODEFAULT:
        return bool(value == field.default)
    return field.default_factory is not NODEFAULT and bool(value == field.default_factory())
