"""`pilothouse key`, `team` and `role`: who may use the server."""

from collections.abc import Callable
from typing import Any

import click

from pilothouse.cli.client import Json, as_object
from pilothouse.cli.get import Filters, quoted, show_all
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.options import json_option
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import limits_text, moment
from pilothouse.domain.policy import GRANTS, ROLES


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--rpm`, `--tpm`, `--parallel` and `--budget`; what is not given is None."""
    for option in (
        click.option("--budget", metavar="MONEY", help="Such as 10usd/month; '' is no limit."),
        click.option("--parallel", type=click.IntRange(0), metavar="N", help="Requests at the same time."),
        click.option("--tpm", type=click.IntRange(0), metavar="N", help="Tokens a minute."),
        click.option("--rpm", type=click.IntRange(0), metavar="N", help="Requests a minute; 0 is no limit."),
    ):
        command = option(command)
    return command


def limits_given(given: dict[str, Any]) -> dict[str, Any]:
    """Takes the options of `limit_options` out of a command's own."""
    found = {name: given.pop(name) for name in ("rpm", "tpm", "parallel", "budget")}
    return {name: value for name, value in found.items() if value is not None}


@click.group()
def key() -> None:
    """
    Create, list, limit, rotate and revoke API keys.

    \b
    Example:
      pilothouse key create --team research --endpoint smollm2 --expires 30d
    """


@key.command("create")
@click.option("--team", required=True, metavar="TEAM", help="Whose key it is.")
@click.option(
    "--role", default="developer", show_default=True, metavar="ROLE", help="See: pilothouse role list."
)
@click.option(
    "--endpoint", "endpoints", multiple=True, metavar="NAME", help="Only this one; may be repeated."
)
@click.option("--expires", default="never", show_default=True, metavar="DURATION", help="Such as 30d.")
@click.option("--name", default="", metavar="TEXT", help="What people call it.")
@click.option(
    "--token-sha256", metavar="HEX", help="Instead of a new one, let a key sk-... of another gateway go on."
)
@limit_options
@client_command
def create_key(
    reach: Reach,
    /,
    team: str,
    *,
    role: str,
    endpoints: tuple[str, ...],
    expires: str,
    name: str,
    token_sha256: str | None,
    **given: Any,
) -> None:
    """
    Create a key. It is shown this once.

    With --token-sha256, no key is made: one that another gateway gave out, `sk-...`,
    works here as well. Its text is not needed, and cannot be had from the hash.

    \b
    Example:
      pilothouse key create --team research --endpoint smollm2 --expires 30d
      pilothouse key create --team research --rpm 60 --budget 10usd/month
      KEY=$(pilothouse key create --team research --json | jq -r .key)
      pilothouse key create --team research --token-sha256 "$(printf %s "$OLD_KEY" | sha256sum | cut -c1-64)"
    """
    body = {
        "team": team,
        "role": role,
        "name": name,
        "expires": expires,
        "endpoints": list(endpoints) or None,
        "limits": limits_given(given),
        "token_sha256": token_sha256,
    }
    _show_new(reach, reach.server().post("/admin/v1/keys", body))


@key.command("list")
@click.option("--team", metavar="TEAM", help="Only of this team.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@client_command
def list_keys(reach: Reach, team: str | None, *, limit: int) -> None:
    """
    List keys, the newest first; never their secrets.

    \b
    Example:
      pilothouse key list --team research
    """
    show_all(reach.out, reach.server(), KINDS["keys"], Filters(team=team, limit=limit))


@key.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap", default="", metavar="DURATION", help="The old one works on for so long, such as 1h."
)
@client_command
def rotate_key(reach: Reach, key_id: str, *, overlap: str) -> None:
    """
    Replace a key by a new one.

    It has another id; the old one ends at once, or after --overlap.

    \b
    Example:
      pilothouse key rotate 3f8k2m1x9q7ab --overlap 1h
    """
    body = {"overlap": overlap} if overlap else {}
    _show_new(reach, reach.server().post(f"/admin/v1/keys/{quoted(key_id)}/rotate", body))


@key.command("limit")
@click.argument("key_id", metavar="ID")
@limit_options
@client_command
def limit_key(reach: Reach, /, key_id: str, **given: Any) -> None:
    """
    Change the limits of a key; what is not named stays as it is.

    \b
    Example:
      pilothouse key limit 3f8k2m1x9q7ab --rpm 60 --budget 10usd/month
      pilothouse key limit 3f8k2m1x9q7ab --rpm 0
    """
    body = {"limits": limits_given(given)}
    _show_limits(reach, _changed(reach, f"/admin/v1/keys/{quoted(key_id)}/limits", body))


@key.command("revoke")
@click.argument("key_id", metavar="ID")
@client_command
def revoke_key(reach: Reach, key_id: str) -> None:
    """
    End a key, everywhere within a second.

    \b
    Example:
      pilothouse key revoke 3f8k2m1x9q7ab
    """
    revoked = reach.server().call("DELETE", f"/admin/v1/keys/{quoted(key_id)}")
    if reach.out.is_json:
        reach.out.json(revoked)
    reach.out.line(f"revoked: {key_id}")


def _show_new(reach: Reach, made: dict[str, object]) -> None:
    if reach.out.is_json:
        reach.out.json(made)
        return
    expires = made.get("expires_at")
    ends = f"until {moment(expires)}" if isinstance(expires, int | float) else "without an end"
    facts = f"id {made['id']}, team {made['team']}, role {made['role']}, {ends}."
    if made["key"] is None:
        reach.out.line(f"carried over: {facts} Its owner goes on using it.")
        return
    click.echo(made["key"])
    click.echo(f"{facts} It is shown this once.", err=True)


def _changed(reach: Reach, path: str, body: Json) -> Json:
    return as_object(reach.server().call("PATCH", path, body=body))


def _show_limits(reach: Reach, changed: dict[str, Any]) -> None:
    if reach.out.is_json:
        reach.out.json(changed)
    said = [f"limits: {limits_text(changed['limits']) or 'none'}"]
    if changed.get("per_subject"):
        said.append(f"for each subject: {limits_text(changed['per_subject'])}")
    reach.out.line("; ".join(said))


@click.group()
def team() -> None:
    """
    Create, list and limit teams.

    \b
    Example:
      pilothouse team create research
    """


@team.command("create")
@click.argument("name")
@limit_options
@client_command
def create_team(reach: Reach, /, name: str, **given: Any) -> None:
    """
    Create a team: the tenant that keys, records and costs belong to.

    \b
    Example:
      pilothouse team create research
      pilothouse team create research --tpm 100000 --budget 500usd/month
    """
    made = reach.server().post("/admin/v1/teams", {"name": name, "limits": limits_given(given)})
    if reach.out.is_json:
        reach.out.json(made)
    reach.out.line(f"created: {name}. A key for it: pilothouse key create --team {name}")


@team.command("limit")
@click.argument("name", metavar="TEAM")
@click.option("--per-subject", "is_per_subject", is_flag=True, help="Of each person, not of the team.")
@limit_options
@client_command
def limit_team(reach: Reach, /, name: str, *, is_per_subject: bool, **given: Any) -> None:
    """
    Change the limits of a team; what is not named stays as it is.

    \b
    Example:
      pilothouse team limit research --rpm 600 --budget 500usd/month
      pilothouse team limit research --per-subject --rpm 20
    """
    body = {"per_subject" if is_per_subject else "limits": limits_given(given)}
    _show_limits(reach, _changed(reach, f"/admin/v1/teams/{quoted(name)}/limits", body))


@team.command("list")
@client_command
def list_teams(reach: Reach) -> None:
    """
    List teams.

    \b
    Example:
      pilothouse team list --json
    """
    show_all(reach.out, reach.server(), KINDS["teams"], Filters())


@click.group()
def role() -> None:
    """
    Which roles there are, and what they may do.

    \b
    Example:
      pilothouse role list
    """


@role.command("list")
@json_option
def list_roles(*, is_json: bool) -> None:
    """
    List roles and their actions.

    \b
    Example:
      pilothouse role list
    """
    items = [{"name": name, "actions": sorted(GRANTS[name])} for name in ROLES]
    rows = [(item["name"], item["actions"]) for item in items]
    Output(is_json=is_json).table({"items": items, "next": None}, ("role", "may"), rows)
