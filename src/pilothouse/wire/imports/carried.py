"""
What an importer makes of a foreign configuration, and what it could not carry.

The importers read foreign mappings through `Fields`, which remembers what was
asked for: whatever nobody asked for becomes a note by itself, so that nothing of
a file is dropped in silence, not even what its next version invents.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct

from pilothouse.domain.limits import LimitWords
from pilothouse.domain.price import PriceRow
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, ModelSpec, Spec
from pilothouse.kit.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_PRIVATE = re.compile(r"(10|127|192\.168|172\.(1[6-9]|2\d|3[01]))\.")
_SHOWN_CHARS = 60


class Note(Struct, frozen=True):
    """Something that was not carried over."""

    path: str
    """Where it stands in what was imported, such as `router_settings.redis_host`."""
    reason: str
    """Why, and what to do instead. Never holds a value that could be a secret."""


class WantedSecret(Struct, frozen=True, kw_only=True):
    """A credential that deployments name, and that has to be set here."""

    name: str
    host: str
    """The only host it may be sent to."""
    variable: str = ""
    """The environment variable that holds it; empty where it stood in the file."""
    value: Secret | None = None
    """Where it stood in the file."""


class CarriedTeam(Struct, frozen=True, kw_only=True):
    name: str
    limits: LimitWords = LimitWords()


class CarriedKey(Struct, frozen=True, kw_only=True):
    """A key whose text nobody has any more."""

    token_sha256: str
    team: str
    name: str = ""
    endpoints: tuple[str, ...] | None = None
    """None is all of them."""
    expires_at: float | None = None
    """Unix seconds; None is never."""
    limits: LimitWords = LimitWords()


class Carried:
    """Filled by one importer."""

    def __init__(self) -> None:
        self.models: dict[str, ModelSpec] = {}
        self.deployments: dict[str, DeploymentSpec] = {}
        self.endpoints: dict[str, EndpointSpec] = {}
        self.secrets: dict[str, WantedSecret] = {}
        self.prices: dict[str, PriceRow] = {}
        """By the name of a deployment."""
        self.teams: dict[str, CarriedTeam] = {}
        self.keys: list[CarriedKey] = []
        self.notes: list[Note] = []

    @property
    def spec(self) -> Spec:
        return Spec(models=self.models, deployments=self.deployments, endpoints=self.endpoints)

    def note(self, path: str, reason: str) -> None:
        self.notes.append(Note(path, reason))


class Fields:
    """
    A foreign mapping, each field of which is taken once.

    Args:
        value: What should be a mapping; anything else has no fields, and gets a note.
        path: Where it stands, for notes.
    """

    def __init__(self, value: object, path: str, carried: Carried) -> None:
        self.path = path
        self._carried = carried
        self._fields: dict[str, Any] = {}
        if isinstance(value, Mapping):
            self._fields = {str(key): item for key, item in value.items() if item is not None}
        elif value is not None:
            carried.note(path or "the file", f"expected a mapping, found {type(value).__name__}")

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def names(self) -> list[str]:
        """Of the fields that nobody took yet."""
        return list(self._fields)

    def take(self, name: str) -> Any:
        """The value, or None; it gets no note any more."""
        return self._fields.pop(name, None)

    def peek(self, name: str) -> Any:
        """The value, or None, which stays untaken."""
        return self._fields.get(name)

    def text(self, name: str) -> str:
        """Empty where it is absent; a note where it is no plain value."""
        value = self.take(name)
        if value is None or isinstance(value, str):
            return (value or "").strip()
        if isinstance(value, int | float):
            return str(value)
        self.refuse(name, f"expected text, found {type(value).__name__}")
        return ""

    def number(self, name: str) -> float | None:
        """A number of 0 or more, or None; a note where something else stands there."""
        value = self.take(name)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self.refuse(name, "expected a number, found text")
                return None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
            self.refuse(name, "expected a number of 0 or more")
            return None
        return value

    def whole(self, name: str) -> int:
        """As `number`, rounded up, and 0 where it is absent."""
        return -int(-(self.number(name) or 0) // 1)

    def texts(self, name: str) -> list[str]:
        """Of a list of text; empty where it is absent."""
        value = self.take(name)
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        self.refuse(name, "expected a list of text")
        return []

    def inner(self, name: str) -> "Fields":
        return Fields(self.take(name), self.at(name), self._carried)

    def items(self, name: str) -> Iterator["Fields"]:
        """The mappings of a list."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, f"expected a list, found {type(value).__name__}")
            return
        for place, item in enumerate(value or []):
            yield Fields(item, f"{self.at(name)}[{place}]", self._carried)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, reason: str) -> None:
        """Note that a field was not carried, and why; it is taken with that."""
        self._fields.pop(name, None)
        self._carried.note(self.at(name), reason)

    def refuse_known(self, reasons: Mapping[str, str]) -> None:
        """A note for each of these that is there."""
        for name in [name for name in reasons if name in self._fields]:
            self.refuse(name, reasons[name])

    def rest(self, reason: str = "nothing here corresponds to it") -> None:
        """A note for each field that nobody took."""
        for name in list(self._fields):
            self.refuse(name, reason)


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A valid name like that one that nobody has yet."""
    base = _OTHER.sub("-", wanted).strip("-._")[: _SHOWN_CHARS - 4] or "imported"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name


def is_name(text: str) -> bool:
    """Whether it may name an endpoint as it stands."""
    return _NAME.fullmatch(text) is not None


def is_near(host: str) -> bool:
    """Whether a host lies in one's own network, by its looks: a name without a dot, or a private one."""
    return "." not in host or bool(_PRIVATE.match(host)) or host.endswith((".local", ".internal", ".svc"))


_PERIODS = {
    "24h": "day", "1d": "day", "7d": "week", "168h": "week", "1w": "week",
    "30d": "month", "31d": "month", "720h": "month", "1mo": "month",
}  # fmt: skip


def budget_words(usd: float | None, duration: str) -> str | None:
    """
    A budget as a spec says it, such as `10usd/month`; empty for none.

    None where there is a budget for another time than a day, a week or a month.
    """
    if usd is None:
        return ""
    period = _PERIODS.get(duration.strip().lower())
    if period is None:
        return None
    return f"{usd:.6f}".rstrip("0").rstrip(".") + f"usd/{period}"
