"""
The only reader of configuration files and of the environment.

`Settings` is how this machine runs Pilothouse; the spec file (`read_spec`) is
what Pilothouse shall run. Unknown names are refused with the nearest valid one.
"""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.price import PriceFile, TokenPrices
from pilothouse.domain.prices import Prices
from pilothouse.domain.spec import Spec
from pilothouse.kit import documents
from pilothouse.kit.documents import Document, Malformed, Place, read_json, read_yaml, show_path
from pilothouse.kit.secret import Secret
from pilothouse.kit.shapes import fit, paths_of


class Settings(Struct, frozen=True, kw_only=True):
    """How this process family runs. Built by the command line, handed to every process as JSON."""

    home: str
    """Folder of all state. `PILOTHOUSE_HOME`, else the user's data folder."""
    keys: str
    """Folder of keys, apart from the state, so that a copy of either alone is worth nothing."""
    host: str = "127.0.0.1"
    """Address to listen on. Another one than loopback needs a proxy with TLS in front, or TLS here."""
    port: int = 8420
    """TCP port; 0 picks a free one."""
    workers: int = 1
    """Gateway processes that share the socket."""
    compiled: bool = True
    """Workers run the compiled request path where `make fast` has built it; `false`: they never do."""
    config: str = ""
    """Spec file; empty runs what the store holds, at first the default model."""
    store: str = ""
    """Store address: `postgresql://user@host/database`, without a password, or `sqlite`. Empty is the one
    that this home used last, at first SQLite in the home."""
    store_password: str = ""
    """Where the store's password is: `env:NAME` or `file:PATH`; empty leaves it to PGPASSFILE."""
    hf_endpoint: str = "https://huggingface.co"
    """Where `hf:` models come from: the hub, or a mirror that speaks its API."""
    hf_token: str = ""
    """Where the hub's token is, for private and gated models: `env:NAME` or `file:PATH`; empty is none."""
    s3_endpoint: str = ""
    """Where `s3:` models come from, such as `https://s3.example:9000`; empty is AWS."""
    s3_region: str = "us-east-1"
    """Region of the buckets; most stores that are not AWS take any."""
    s3_access_key_id: str = ""
    """Name of the key for `s3:`; empty reads public objects only."""
    s3_secret_access_key: str = ""
    """Where that key's secret is: `env:NAME` or `file:PATH`."""
    models_folder: str = ""
    """Folder of model files, shared by several servers where you like; empty is in the home."""
    tls_certificate: str = ""
    """PEM file with the chain; with `tls_key` it turns on TLS 1.3."""
    tls_key: str = ""
    """PEM file with its private key."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Largest request body; larger ones get 413."""
    max_connections: int = 10_000
    """Connections per worker; beyond it new ones are closed at once."""
    header_timeout_s: float = 10.0
    """Time for a request's head to arrive."""
    body_timeout_s: float = 60.0
    """Time for a request's body to arrive."""
    keepalive_timeout_s: float = 75.0
    """How long an idle connection is kept."""
    write_timeout_s: float = 30.0
    """How long a reader that takes nothing holds its answer."""
    sse_keepalive_s: float = 10.0
    """Silence after which a stream gets a comment line; 0 is off."""
    drain_timeout_s: float = 30.0
    """How long requests in flight may go on when a worker ends."""
    prices: str = ""
    """File of the prices of tokens; empty takes those that come with Pilothouse."""
    ledger_url: str = ""
    """Redis or Valkey for limits and budgets that several servers share, such as `redis://127.0.0.1:6379/0`,
    or `rediss://user@limits.example:6379` with TLS; empty: they are this server's alone."""
    ledger_password: str = ""
    """Where its password is: `env:NAME` or `file:PATH`."""
    ledger_lost: Literal["closed", "share"] = "closed"
    """When what grants leases is lost and a lease is spent: refuse with 503 (`closed`), or go on with a
    bounded part of each limit, a server's and worker's share of rates and of a twentieth of budgets
    (`share`)."""
    batch_inflight: int = 32
    """Requests of batches in flight at once, for each model, and never more than half of its places."""
    file_bytes: int = 200 * 1024 * 1024
    """Largest file of `/v1/files`. An upload is one request: `max_body_bytes` bounds it too."""
    team_file_bytes: int = 2 * 1024 * 1024 * 1024
    """What the files of one team may have together."""
    team_files: int = 1000
    """How many files one team may have."""
    journal_segment_bytes: int = 64 * 1024 * 1024
    """Size of a preallocated journal segment; two lie ready per worker."""
    journal_sync: Literal["process", "power"] = "process"
    """`process`: an answer survives a killed process. `power`: grouped fdatasync as well, for power loss."""
    journal_full: Literal["refuse", "serve"] = "refuse"
    """When no record can be kept: refuse with 503, or serve and count what was dropped."""
    cache_bytes: int = 64 * 1024 * 1024
    """Room for cached answers in each worker, where an endpoint has a cache; the least recently used go
    first, and an answer above a sixteenth of it is not kept. 0 keeps none."""
    cache_url: str = ""
    """Redis or Valkey for the cached answers of all workers, such as `redis://127.0.0.1:6379/0`, or
    `rediss://user@cache.example:6379` with TLS; empty keeps them in each worker alone. What lies there is
    sealed with the keys of this home."""
    cache_password: str = ""
    """Where its password is: `env:NAME` or `file:PATH`."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) whose `x-forwarded-for` is believed."""
    metrics: Literal["auto", "open", "key"] = "auto"
    """Who may read /metrics: `key` needs an admin, operator or auditor key; `open` is for anyone who
    reaches the port; `auto` is `open` to this machine when `host` is loopback, else `key`."""
    proxy_protocol: bool = False
    """Expect a PROXY protocol header (version 1 or 2) on every connection."""

    @property
    def home_path(self) -> Path:
        return Path(self.home)

    @property
    def keys_path(self) -> Path:
        return Path(self.keys)

    @property
    def run_path(self) -> Path:
        """Folder of sockets: in the home when that is short, for a Unix socket's path ends at 107 bytes."""
        inside = Path(self.home) / "run"
        if len(str(inside)) <= 60:
            return inside
        digest = sha256(str(inside).encode()).hexdigest()[:12]
        base = tempfile.gettempdir()
        if len(base) > 40:
            base = "/tmp"  # noqa: S108 - the folder in it is ours alone (`kit.folders`), and its path must be short
        return Path(base) / f"pilothouse-{os.getuid()}-{digest}"

    @property
    def control_socket(self) -> Path:
        return self.run_path / "control.sock"

    @property
    def feed_socket(self) -> Path:
        return self.run_path / "feed.sock"

    @property
    def totals_file(self) -> Path:
        """What the workers counted so far, for the next controller of the same server."""
        return self.run_path / "totals"

    @property
    def board_file(self) -> Path:
        """How many connections each worker has, for the others to see."""
        return self.run_path / "board"

    @property
    def admin_key_file(self) -> Path:
        return Path(self.keys) / "admin.key"

    @property
    def journal_path(self) -> Path:
        return Path(self.home) / "journal"

    @property
    def files_path(self) -> Path:
        """Folder of the files of teams, sealed."""
        return Path(self.home) / "files"

    @property
    def is_sqlite(self) -> bool:
        return self.store in ("", "sqlite")

    @property
    def store_file(self) -> Path:
        """Where the home remembers its store."""
        return Path(self.home) / "store.json"

    @property
    def database_file(self) -> Path:
        return Path(self.home) / "pilothouse.db"

    @property
    def models_path(self) -> Path:
        """Folder of model files."""
        return Path(self.models_folder) if self.models_folder else Path(self.home) / "models"

    @property
    def state_file(self) -> Path:
        """Where a running server says its url and its pids."""
        return Path(self.home) / "server.json"

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str) -> "Settings":
        return msgspec.json.decode(text, type=Settings)


def default_home() -> Path:
    """The folder of state when `--home` is not given."""
    if chosen := os.environ.get("PILOTHOUSE_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pilothouse"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "pilothouse"


def make_settings(*, home: str | None = None, keys: str | None = None, **changes: object) -> Settings:
    """Build settings from a command's options; what is None or absent has its default."""
    home_path = Path(home).expanduser().absolute() if home else default_home()
    keys_path = Path(keys).expanduser().absolute() if keys else Path(f"{home_path}-keys")
    given = {name: value for name, value in changes.items() if value is not None}
    return msgspec.convert({"home": str(home_path), "keys": str(keys_path), **given}, Settings)


def client_url() -> str | None:
    """`PILOTHOUSE_URL`: the server that client commands talk to."""
    return os.environ.get("PILOTHOUSE_URL") or None


def client_api_key() -> str | None:
    """`PILOTHOUSE_API_KEY`: the key that client commands present."""
    return os.environ.get("PILOTHOUSE_API_KEY") or None


def read_secret(reference: str) -> Secret:
    """
    The secret that `env:NAME` or `file:PATH` refers to.

    Raises:
        InvalidRequest: It is no such reference, or there is nothing behind it. The text is
            not repeated where it may be the secret itself.
    """
    kind, _, place = reference.partition(":")
    if kind == "env" and place:
        value = os.environ.get(place, "")
    elif kind == "file" and place:
        try:
            value = Path(place).expanduser().read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(
                f"cannot read a secret from the file {place}: {exc}. fix: name another"
            ) from exc
    else:
        raise InvalidRequest("a secret is given as env:NAME or file:PATH, never as it is")
    if not value:
        raise InvalidRequest(f"there is no secret at {reference}: it is empty. fix: set it, or name another")
    return Secret(value)


def inherited_environment(*names: str) -> dict[str, str]:
    """The named variables, where set: for children that must not inherit the rest."""
    return {name: os.environ[name] for name in names if name in os.environ}


def https_proxy(host: str) -> str:
    """The proxy that leads to a host (`HTTPS_PROXY`, unless `NO_PROXY` names the host), or nothing."""
    # Loaded when it is needed: it brings an HTTP client along, and every process imports this module.
    request = importlib.import_module("urllib.request")
    found: str = "" if request.proxy_bypass(host) else request.getproxies().get("https", "")
    return found


def read_token_prices(text: bytes, *, name: str) -> TokenPrices:
    """
    Read a file of the prices of tokens.

    Raises:
        InvalidRequest: Names file, line, field and value.
    """
    try:
        document = read_yaml(text)
    except Malformed as exc:
        raise InvalidRequest(_at(name, exc.place) + exc.message) from exc
    value, misfits = fit(document.value, PriceFile, document.texts)
    if misfits:
        raise InvalidRequest(
            join_faults(
                [
                    _at(name, document.place(one.path, of_key=one.of_key)) + _worded(one.path, one.text)
                    for one in misfits
                ]
            )
        )
    try:
        return TokenPrices(msgspec.convert(value, PriceFile, strict=False))
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"{name}: {exc}") from exc


SPEC_BYTES = 8 * 1024 * 1024
"""Larger than any spec file."""
_REVISION = re.compile(rb"\A# revision ([0-9]{1,15})\s*$", re.MULTILINE)
_SHOWN_FAULTS = 10


class SpecFile(Struct, frozen=True, kw_only=True):
    """A spec with what its file says of itself."""

    name: str
    """How messages call it."""
    spec: Spec
    document: Document
    revision: int | None = None
    """The revision that it was made from, where `pilothouse spec` wrote it down in the first line."""

    def located(self, fault: str) -> str:
        """
        A fault as `file:line:column: field: what is wrong`.

        Args:
            fault: As `domain.speccheck` words it: the field's path, a colon, the rest.
        """
        places = {show_path(path): path for path in paths_of(self.document.value)}
        words = fault.partition(": ")[0]
        while words and words not in places:
            words = words[: max(words.rfind("."), words.rfind("["), 0)]
        return _at(self.name, self.document.place(places.get(words, ()))) + fault


def read_spec(text: bytes, *, name: str = "spec") -> Spec:
    """
    Read a spec file.

    Raises:
        InvalidRequest: Names file, line, column, field, value, and the nearest valid name.
    """
    return read_spec_file(text, name=name).spec


def read_spec_file(text: bytes, *, name: str) -> SpecFile:
    """As `read_spec`, with the places of everything, so that later faults can be located too."""
    if len(text) > SPEC_BYTES:
        raise InvalidRequest(f"{name}: over {SPEC_BYTES} bytes is no spec file")
    try:
        document = read_yaml(text)
    except Malformed as exc:
        raise InvalidRequest(_at(name, exc.place) + exc.message) from exc
    found = _REVISION.match(text)
    return SpecFile(
        name=name, spec=_spec_of(document, name), document=document, revision=int(found[1]) if found else None
    )


def read_prices(path: Path) -> Prices:
    """
    Read a prices file.

    Raises:
        InvalidRequest: It cannot be read, or names the field and its fault.
    """
    prices = read_values(path, Prices, hint="it has as_of (a date) and usd_per_hour (a map)")
    if prices.fault:
        raise InvalidRequest(f"{path}: {prices.fault}")
    return prices


_Values = TypeVar("_Values", bound=Struct)


def read_values(path: Path, shape: type[_Values], *, hint: str) -> _Values:
    """
    Read a small YAML file of a known shape that a person wrote.

    Args:
        hint: What the file has; ends the message.

    Raises:
        InvalidRequest: It cannot be read, or names the field and its fault.
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=shape)
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc.strerror}; check the path") from exc
    except msgspec.DecodeError as exc:  # a ValidationError is one too
        what = " ".join(str(exc).split())
        raise InvalidRequest(f"{path}: {what}; {hint}") from exc


def read_spec_json(text: bytes) -> Spec:
    """
    Read a spec that came over the network, as JSON.

    Raises:
        InvalidRequest: As `read_spec`, without lines.
        RecursionError: Nested too deeply.
    """
    try:
        return _spec_of(read_json(text), "spec")
    except Malformed as exc:
        raise InvalidRequest(_at("spec", exc.place) + exc.message, param="spec") from exc


def write_spec(spec: Spec) -> bytes:
    """The spec as a file that `read_spec` reads back equal."""
    return msgspec.yaml.encode(spec)


def environment() -> Mapping[str, str]:
    """The variables as they are, for files of other products that name them."""
    return os.environ


def write_brief_spec(spec: Spec) -> bytes:
    """As `write_spec`, without what is as it would be anyway."""
    return msgspec.yaml.encode({"version": spec.version, **_told(spec)})


def _told(value: Struct) -> dict[str, object]:
    """The fields that differ from their defaults."""
    found: dict[str, object] = {}
    for info in msgspec.structs.fields(type(value)):
        held = getattr(value, info.name)
        usual = info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()
        if held != usual:
            found[info.encode_name] = _brief(held)
    return found


def _brief(value: object) -> object:
    if isinstance(value, Struct):
        return _told(value)
    if isinstance(value, dict):
        return {key: _brief(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_brief(item) for item in value]
    return value


def _spec_of(document: Document, name: str) -> Spec:
    if document.value is None:
        raise InvalidRequest(f"{name} is empty; see: pilothouse spec, which writes what runs", param="spec")
    value, misfits = fit(document.value, Spec, document.texts)
    if misfits:
        faults = [
            _at(name, document.place(one.path, of_key=one.of_key)) + _worded(one.path, one.text)
            for one in misfits
        ]
        raise InvalidRequest(join_faults(faults), param="spec", faults=faults)
    try:
        return msgspec.convert(value, Spec)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"{name}: {exc}", param="spec") from exc


def join_faults(faults: Sequence[str]) -> str:
    """The first ten, one a line."""
    more = len(faults) - _SHOWN_FAULTS
    return "\n".join([*faults[:_SHOWN_FAULTS], *([f"and {more} more"] if more > 0 else [])])


def _worded(path: documents.Path, text: str) -> str:
    if path == ("version",):
        text += (
            ". fix: write `version: 1`, the schema that this Pilothouse reads; a file of another schema "
            "goes with the Pilothouse that wrote it (pilothouse spec --schema shows this one)"
        )
    return f"{show_path(path)}: {text}" if path else text


def _at(name: str, place: Place | None) -> str:
    return f"{name}:{place.line}:{place.column}: " if place else f"{name}: "
