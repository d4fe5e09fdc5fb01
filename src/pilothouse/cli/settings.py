"""From the options of `up` to settings: what is wrong is said before anything starts."""

import difflib
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from pilothouse.app.engines import engine_drivers, option_types
from pilothouse.config import (
    Settings,
    join_faults,
    make_settings,
    read_secret,
    read_spec_file,
    read_token_prices,
)
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.speccheck import engine_faults
from pilothouse.kit.resp import parse_address


class UpOptions(Struct, frozen=True, kw_only=True):
    home: str | None
    keys: str | None
    host: str | None
    port: int | None
    workers: int | None
    config: str | None
    store: str | None
    prices: str | None
    tls_certificate: str | None
    tls_key: str | None
    more: tuple[str, ...]
    detach: bool
    is_json: bool


OWN_OPTION = frozenset(UpOptions.__struct_fields__)


def settings_of(options: UpOptions) -> Settings:
    """
    Raises:
        InvalidRequest: A setting has no such name or value, or a file that is named is not there.
    """
    for name in ("tls_certificate", "tls_key"):
        path = getattr(options, name)
        if path and not Path(path).is_file():
            raise InvalidRequest(f"--{name.replace('_', '-')}: there is no file {path}. fix: name a PEM file")
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise InvalidRequest("TLS needs both. fix: --tls-certificate FILE --tls-key FILE")
    if options.config:
        check_spec(Path(options.config))
    if options.prices:
        check_prices(Path(options.prices))
    more = parse_more(options.more)
    if options.store:
        check_store(options.store)
    if reference := str(more.get("store_password", "")):
        more["store_password"] = check_reference(reference)
    for of in ("cache", "ledger"):
        if url := str(more.get(f"{of}_url", "")):
            check_redis(of, url)
        if reference := str(more.get(f"{of}_password", "")):
            more[f"{of}_password"] = check_reference(reference)
    return make_settings(
        home=options.home,
        keys=options.keys,
        host=options.host,
        port=options.port,
        workers=options.workers,
        store=options.store,
        config=_absolute(options.config),
        prices=_absolute(options.prices),
        tls_certificate=_absolute(options.tls_certificate),
        tls_key=_absolute(options.tls_key),
        **more,
    )


def check_reference(text: str) -> str:
    """
    A reference to a secret that is there, with an absolute path: the home remembers it.

    Raises:
        InvalidRequest: See `read_secret`.
    """
    read_secret(text)
    kind, _, place = text.partition(":")
    return f"file:{_absolute(place)}" if kind == "file" else text


def check_store(url: str) -> None:
    """
    Refuse an address that cannot be one, and any that holds a password: everyone on this machine
    can read a command line. What was given is not repeated, for the same reason.

    Raises:
        InvalidRequest: The message says what an address looks like.
    """
    if url == "sqlite":
        return
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise InvalidRequest(
            "--store: not an address of a store. fix: postgresql://user@host/database, or sqlite"
        )
    if parts.password is not None or {"password", "sslpassword"} & parse_qs(parts.query).keys():
        raise InvalidRequest(
            "--store: the address holds a password, which everyone on this machine could read. "
            "fix: leave it out, and give --set store_password=file:PATH (or env:NAME), or a PGPASSFILE"
        )
    if not parts.path.strip("/"):
        raise InvalidRequest("--store: the address names no database. fix: postgresql://user@host/database")


def check_redis(of: str, url: str) -> None:
    """
    Raises:
        InvalidRequest: It is no address, or holds a password; what was given is not repeated.
    """
    try:
        parse_address(url)
    except ValueError as exc:
        raise InvalidRequest(
            f"{of}_url: {exc}. fix: --set {of}_url=redis://127.0.0.1:6379/0, and its password apart: "
            f"--set {of}_password=file:PATH (or env:NAME)"
        ) from exc


def check_spec(path: Path) -> None:
    """Here rather than in the controller alone: a typing error must not cost a start."""
    try:
        file = read_spec_file(path.read_bytes(), name=str(path))
    except OSError as exc:
        raise InvalidRequest(f"--config: cannot read {path}: {exc.strerror}. fix: name a spec file") from exc
    faults = list(engine_faults(file.spec, option_types(engine_drivers())))
    if faults:
        raise InvalidRequest(join_faults([file.located(fault) for fault in faults]), faults=faults)


def check_prices(path: Path) -> None:
    """
    Raises:
        InvalidRequest: It cannot be read, or is no file of prices.
    """
    try:
        read_token_prices(path.read_bytes(), name=str(path))
    except OSError as exc:
        raise InvalidRequest(
            f"--prices: cannot read {path}: {exc.strerror}. fix: name a file of prices"
        ) from exc


def parse_more(given: Iterable[str]) -> dict[str, object]:
    """
    The values of `--set NAME=VALUE`, each of its setting's type; lists are parted by commas.

    Raises:
        InvalidRequest: Names the setting and what its value must be.
    """
    known = {field.name: field for field in fields(Settings) if field.name not in OWN_OPTION}
    values: dict[str, object] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"{near[0]}=..." if near else f"NAME=VALUE with one of {', '.join(known)}"
            raise InvalidRequest(f"--set {text}: there is no such setting. fix: {hint}", param="set")
        values[name] = _value(known[name], value)
    return values


_NOT_OF_TYPE = {float: "not a number", int: "not a whole number", bool: "neither true nor false"}


def _value(field: FieldInfo, text: str) -> object:
    is_list = isinstance(field.default, tuple)
    given = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    try:
        value: object = msgspec.convert(given, field.type, strict=False)
        if field.name == "trusted_proxies":
            for network in given:
                ip_network(network)
    except (msgspec.ValidationError, ValueError) as exc:
        why = _NOT_OF_TYPE.get(field.type, str(exc))
        raise InvalidRequest(f"--set {field.name}={text}: {why}. fix: such as {_example(field)}") from exc
    return value


def _example(field: FieldInfo) -> str:
    if isinstance(field.default, tuple):
        return f"{field.name}=10.0.0.0/8,192.168.1.7/32"
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"{field.name}={default}"


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else None
