"""
Which server a command means, and with which key.

The one idea: the local admin key goes to the local server and to nobody else.
"""

import sys
from urllib.parse import urlsplit

from pilothouse.app.home import ServerState, running_server
from pilothouse.cli.client import Server
from pilothouse.config import Settings, client_api_key, client_url, make_settings
from pilothouse.domain.errors import InvalidApiKey, ServerUnreachable


def find_server(
    *, home: str | None = None, keys: str | None = None, url: str | None = None, api_key: str | None = None
) -> Server:
    """
    The server that the options, the environment or the local home name.

    Raises:
        ServerUnreachable: None is named, and none runs in the home.
        InvalidApiKey: There is no key for it.
    """
    settings = make_settings(home=home, keys=keys)
    state = running_server(settings.home_path)
    wanted = url or client_url()
    key = api_key or client_api_key()
    if wanted:
        is_local = state is not None and state.url == wanted.rstrip("/")
        if not key and not is_local:
            raise InvalidApiKey(f"no key for {wanted}. fix: set PILOTHOUSE_API_KEY, or give --api-key")
        return _server(settings, wanted, key, certificate=_certificate(state, is_local))
    if state is None:
        raise ServerUnreachable(
            f"no server runs in {settings.home}. fix: pilothouse up, or name one by --url"
        )
    return _server(settings, state.url, key, certificate=state.certificate)


def _server(settings: Settings, url: str, key: str | None, *, certificate: str) -> Server:
    if key:
        return Server(url, key, certificate=certificate)
    key_file = str(settings.admin_key_file)
    return Server(url, read_admin_key(settings), certificate=certificate, key_file=key_file)


def _certificate(state: ServerState | None, is_local: bool) -> str:  # noqa: FBT001 - a fact, not an option
    return state.certificate if state and is_local else ""


def read_admin_key(settings: Settings) -> str:
    """
    Raises:
        InvalidApiKey: The file is not there or not readable.
    """
    try:
        return settings.admin_key_file.read_text().strip()
    except OSError as exc:
        raise InvalidApiKey(
            f"cannot read the admin key {settings.admin_key_file}: {exc.strerror}. "
            "fix: set PILOTHOUSE_API_KEY, or name the keys folder by --keys"
        ) from exc


def warn_about_clear_text(server: Server) -> None:
    """Say so when a key would cross a network unprotected."""
    parts = urlsplit(server.url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        print(f"warning: the key goes to {parts.hostname} in clear text. fix: https", file=sys.stderr)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
