"""`pilothouse key`, `team` and `role`: who may use the server."""

import click

from pilothouse.cli.get import Filters, quoted, show_all
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.options import json_option
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import moment
from pilothouse.domain.policy import GRANTS, ROLES


@click.group()
def key() -> None:
    """
    Create, list, rotate and revoke API keys.

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
@client_command
def create_key(
    reach: Reach, team: str, *, role: str, endpoints: tuple[str, ...], expires: str, name: str
) -> None:
    """
    Create a key. It is shown this once.

    \b
    Example:
      pilothouse key create --team research --endpoint smollm2 --expires 30d
      KEY=$(pilothouse key create --team research --json | jq -r .key)
    """
    body = {
        "team": team,
        "role": role,
        "name": name,
        "expires": expires,
        "endpoints": list(endpoints) or None,
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
    click.echo(made["key"])
    expires = made.get("expires_at")
    ends = f"until {moment(expires)}" if isinstance(expires, int | float) else "without an end"
    note = f"id {made['id']}, team {made['team']}, role {made['role']}, {ends}. It is shown this once."
    click.echo(note, err=True)


@click.group()
def team() -> None:
    """
    Create and list teams.

    \b
    Example:
      pilothouse team create research
    """


@team.command("create")
@click.argument("name")
@client_command
def create_team(reach: Reach, name: str) -> None:
    """
    Create a team: the tenant that keys, records and costs belong to.

    \b
    Example:
      pilothouse team create research
    """
    made = reach.server().post("/admin/v1/teams", {"name": name})
    if reach.out.is_json:
        reach.out.json(made)
    reach.out.line(f"created: {name}. A key for it: pilothouse key create --team {name}")


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
