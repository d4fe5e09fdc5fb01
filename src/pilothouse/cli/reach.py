"""Client commands: the options that find a server, and what they turn into."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import click
from msgspec import Struct

from pilothouse.cli.client import Server
from pilothouse.cli.find import find_server, warn_about_clear_text
from pilothouse.cli.options import Command, home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.config import Settings, make_settings

P = ParamSpec("P")
R = TypeVar("R")


class Reach(Struct, frozen=True, kw_only=True):
    """Where a client command goes, and how it prints."""

    out: Output
    settings: Settings
    url: str | None = None
    api_key: str | None = None

    def server(self) -> Server:
        """
        Raises:
            ServerUnreachable, InvalidApiKey: See `find_server`.
        """
        server = find_server(
            home=self.settings.home, keys=self.settings.keys, url=self.url, api_key=self.api_key
        )
        warn_about_clear_text(server)
        return server


def client_command(function: Callable[Concatenate[Reach, P], R]) -> Callable[..., R]:
    """For commands that talk to a server: they get a `Reach` first, then their own parameters."""

    def command(
        home: str | None,
        keys: str | None,
        url: str | None,
        api_key: str | None,
        is_json: bool,  # noqa: FBT001 - click passes it by name
        *args: P.args,
        **own: P.kwargs,
    ) -> R:
        reach = Reach(
            out=Output(is_json=is_json),
            settings=make_settings(home=home, keys=keys),
            url=url,
            api_key=api_key,
        )
        return function(reach, *args, **own)

    wrapped: Command = update_wrapper(command, function)
    wrapped = json_option(wrapped)
    wrapped = click.option("--api-key", metavar="KEY", help="Key to present (better: PILOTHOUSE_API_KEY).")(
        wrapped
    )
    wrapped = click.option(
        "--url", metavar="URL", help="Server to talk to (default: PILOTHOUSE_URL, else local)."
    )(wrapped)
    return home_options(wrapped)
