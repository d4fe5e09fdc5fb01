"""`pilothouse secret`: what providers ask for, sealed and bound to a host."""

import sys

import click

from pilothouse.cli.client import as_object
from pilothouse.cli.get import Filters, quoted, show_all
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.reach import Reach, client_command
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.provider_secret import MAX_CHARS

PATH = "/admin/v1/secrets"


@click.group()
def secret() -> None:
    """
    Set, list and remove the secrets that providers ask for.

    \b
    Example:
      pilothouse secret set openai --host api.openai.com
    """


@secret.command("set")
@click.argument("name")
@click.option("--host", required=True, metavar="HOST", help="The only one it is sent to: host or host:port.")
@click.option("--team", default="", metavar="TEAM", help="Whose endpoints may use it; by default all.")
@client_command
def set_secret(reach: Reach, name: str, *, host: str, team: str) -> None:
    """
    Set a secret, or give it another value without a restart.

    The value is asked for, or read from standard input; it is no argument, for
    those are seen by every user of the machine and stay in the shell's history.

    \b
    Example:
      pilothouse secret set openai --host api.openai.com
      pilothouse secret set gpu --host gpu-1:8000 --team research < token.txt
    """
    server, value = reach.server(), _value(name)
    body = {"value": value, "host": host.lower(), "team": team}
    done = as_object(server.call("PUT", f"{PATH}/{quoted(name)}", body=body))
    if reach.out.is_json:
        reach.out.json(done)
    for_whom = f"endpoints of team {team}" if team else "endpoints of all teams"
    reach.out.line(
        f"set: {name}, for {done['host']} and {for_whom}. A deployment names it as: secret: {name}"
    )


@secret.command("list")
@client_command
def list_secrets(reach: Reach) -> None:
    """
    List secrets: names, hosts and who uses them; never a value.

    \b
    Example:
      pilothouse secret list
    """
    show_all(reach.out, reach.server(), KINDS["secrets"], Filters())


@secret.command("remove")
@click.argument("name")
@client_command
def remove_secret(reach: Reach, name: str) -> None:
    """
    Remove a secret; refused while a deployment names it.

    \b
    Example:
      pilothouse secret remove openai
    """
    done = reach.server().call("DELETE", f"{PATH}/{quoted(name)}")
    if reach.out.is_json:
        reach.out.json(done)
    reach.out.line(f"removed: {name}")


def _value(name: str) -> str:
    """From the terminal, unseen, else from standard input, without the end of its last line."""
    if sys.stdin.isatty():
        text = str(click.prompt(f"Value of {name} (hidden)", hide_input=True, err=True))
    else:
        text = sys.stdin.read(MAX_CHARS + 2)
    value = text.strip()
    if not value or len(value) > MAX_CHARS:
        raise InvalidRequest(
            f"the value has {len(value)} characters, not 1 to {MAX_CHARS}. fix: check the input"
        )
    return value
