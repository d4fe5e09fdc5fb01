"""
YAML and JSON documents, read with the place of every value.

What a document means is for others. The one idea: it is built from the parser's
events by hand, with a bound on depth and size, so that a repeated key, a bomb of
aliases or a tag that makes objects is refused where it stands, and later readers
can say in which line their fault is.
"""

import importlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Struct, field

MAX_DEPTH = 64
MAX_VALUES = 500_000
"""Far above any real document; an alias counts as all that it stands for."""

Path = tuple[str | int, ...]
"""Keys and list positions from the root."""


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


class Malformed(ValueError):
    """Not a document that can be taken. `place` is None where nobody knows."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


class Document(Struct, frozen=True):
    value: Any
    places: dict[Path, Place] = field(default_factory=dict)
    """Of a plain value where it begins, of a mapping or list where its key is."""
    keys: dict[Path, Place] = field(default_factory=dict)
    """Where the key of a value begins."""
    texts: dict[Path, str] = field(default_factory=dict)
    """What was written, for unquoted values that were read as something else than text (`off`, `1.10`)."""

    def place(self, path: Path, *, of_key: bool = False) -> Place | None:
        """Where that value is; for one that is not there, where its nearest owner is."""
        if of_key and path in self.keys:
            return self.keys[path]
        for length in range(len(path), -1, -1):
            if found := self.places.get(path[:length]):
                return found
        return None


def show_path(path: Path) -> str:
    """`endpoints.chat.routes[0].weight`"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read_json(text: bytes) -> Document:
    """
    Raises:
        Malformed: Not JSON, or a key stands twice in one object.
        RecursionError: Nested too deeply.
    """

    def refuse_number(word: str) -> object:
        raise Malformed(f"{word} is not a number in JSON")

    try:
        return Document(json.loads(text, object_pairs_hook=_object, parse_constant=refuse_number))
    except json.JSONDecodeError as exc:
        raise Malformed(f"not valid JSON: {exc.msg}", Place(exc.lineno, exc.colno)) from exc
    except UnicodeDecodeError as exc:
        raise Malformed("not valid JSON: it is not UTF-8") from exc
    except Malformed:
        raise
    except ValueError as exc:  # a number of many thousand digits
        raise Malformed(f"not valid JSON: {exc}") from exc


def read_yaml(text: bytes) -> Document:
    """
    Raises:
        Malformed: Not one YAML document of mappings, lists and plain values.
    """
    # Half a megabyte that a gateway worker, which reads settings alone, need not carry.
    yaml = importlib.import_module("yaml")
    builder = _Builder(yaml)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.take(event)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        words = ", ".join(part for part in (exc.context, exc.problem) if part)
        raise Malformed(f"not valid YAML: {words}", _place(mark) if mark else None) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise Malformed(f"not valid YAML: {' '.join(str(exc).split())}") from exc
    return Document(builder.root, builder.places, builder.keys, builder.texts)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name, value in pairs:
        if name in made:
            raise Malformed(f"the key {name[:64]!r} stands twice in one object")
        made[name] = value
    return made


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


class _Frame:
    """A mapping or list that is being filled. `values` counts all that is in it."""

    def __init__(self, value: Any, path: Path, *, anchor: str | None, place: Place) -> None:
        self.value = value
        self.path = path
        self.anchor = anchor
        self.place = place
        self.key: str | None = None
        self.key_place = place
        self.merged: list[dict[str, Any]] = []
        self.values = 1


class _Builder:
    """Takes events one after the other; what was built is in `root`."""

    def __init__(self, yaml: Any) -> None:
        self._yaml = yaml
        self._resolver = yaml.resolver.Resolver()
        self._constructor = yaml.constructor.SafeConstructor()
        self._open: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._documents = 0
        self.root: Any = None
        self.places: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.texts: dict[Path, str] = {}

    def take(self, event: Any) -> None:
        events = self._yaml.events
        place = _place(event.start_mark)
        if isinstance(event, events.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise Malformed("a second document begins here; there may be one only", place)
        elif isinstance(event, events.ScalarEvent):
            self._scalar(event, place)
        elif isinstance(event, events.AliasEvent):
            self._alias(event, place)
        elif isinstance(event, events.MappingStartEvent | events.SequenceStartEvent):
            self._begin(event, place)
        elif isinstance(event, events.MappingEndEvent | events.SequenceEndEvent):
            self._end()

    def _begin(self, event: Any, place: Place) -> None:
        is_mapping = isinstance(event, self._yaml.events.MappingStartEvent)
        self._refuse_tag(event, {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}, place)
        if self._awaits_key():
            raise Malformed("a key is plain text, never a mapping or a list", place)
        if len(self._open) >= MAX_DEPTH:
            raise Malformed(f"nested more than {MAX_DEPTH} deep", place)
        path = self._path()
        self.places[path] = self._open[-1].key_place if self._in_mapping() else place
        self._open.append(_Frame({} if is_mapping else [], path, anchor=event.anchor, place=place))

    def _end(self) -> None:
        frame = self._open.pop()
        for merged in frame.merged:
            for name, value in merged.items():
                frame.value.setdefault(name, value)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.value, frame.values)
        self._put(frame.value, frame.place, values=frame.values)

    def _scalar(self, event: Any, place: Place) -> None:
        if self._awaits_key():
            self._key(event.value, place)
            return
        value = self._value_of(event, place)
        path = self._path()
        self.places[path] = place
        if not isinstance(value, str):
            self.texts[path] = event.value
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._put(value, place)

    def _key(self, text: str, place: Place) -> None:
        """Keys are text as written: `on`, `2` and `~` are names here, nothing else."""
        frame = self._open[-1]
        if text in frame.value and text != "<<":
            before = self.keys.get((*frame.path, text))
            where = f", first in line {before.line}" if before else ""
            raise Malformed(f"the key {text[:64]!r} stands twice{where}", place)
        frame.key, frame.key_place = text, place
        self.keys[*frame.path, text] = place

    def _value_of(self, event: Any, place: Place) -> Any:
        if event.tag not in (None, "!"):
            self._refuse_tag(event, {f"tag:yaml.org,2002:{kind}" for kind in _PLAIN}, place)
        if event.tag is None and not event.implicit[0]:
            return event.value  # quoted
        node_type = self._yaml.nodes.ScalarNode
        tag = event.tag
        if tag is None:
            tag = self._resolver.resolve(node_type, event.value, (True, False))
        if tag.rpartition(":")[2] not in _PLAIN:
            return event.value  # a date is text here
        try:
            return self._constructor.construct_object(node_type(tag, event.value))
        except (ValueError, KeyError, self._yaml.YAMLError) as exc:
            raise Malformed(f"{event.value[:64]!r} cannot be read", place) from exc

    def _alias(self, event: Any, place: Place) -> None:
        if self._awaits_key():
            raise Malformed("a key is plain text, never an alias", place)
        if event.anchor not in self._anchors:
            raise Malformed(f"there is no anchor &{event.anchor[:64]} before this alias", place)
        value, values = self._anchors[event.anchor]
        self.places[self._path()] = place
        self._put(value, place, values=values)

    def _put(self, value: Any, place: Place, *, values: int = 1) -> None:
        if not self._open:
            self.root = value
            return
        frame = self._open[-1]
        frame.values += values
        if frame.values > MAX_VALUES:
            raise Malformed(f"more than {MAX_VALUES} values", place)
        if isinstance(frame.value, list):
            frame.value.append(value)
            return
        key, frame.key = frame.key, None
        if key == "<<":
            frame.merged += _merged(value, place)
        elif key is not None:
            frame.value[key] = value

    def _refuse_tag(self, event: Any, known: set[str], place: Place) -> None:
        if event.tag is not None and event.tag not in known:
            raise Malformed(f"the tag {event.tag[:64]!r} is not allowed: only plain values are read", place)

    def _in_mapping(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict)

    def _awaits_key(self) -> bool:
        return self._in_mapping() and self._open[-1].key is None

    def _path(self) -> Path:
        """Of the value that comes next."""
        if not self._open:
            return ()
        frame = self._open[-1]
        return (*frame.path, frame.key if frame.key is not None else len(frame.value))


_PLAIN = frozenset({"null", "bool", "int", "float", "str"})


def _merged(value: Any, place: Place) -> Iterator[dict[str, Any]]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            raise Malformed("<< takes a mapping, or a list of mappings", place)
        yield one
