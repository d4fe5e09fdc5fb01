"""`pilothouse usage report`: who used how much in a month."""

import click

from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import dollars


@click.group()
def usage() -> None:
    """
    Who used how much.

    \b
    Example:
      pilothouse usage report --by team --month 2026-11
    """


@usage.command("report")
@click.option(
    "--by",
    type=click.Choice(["team", "key", "endpoint", "subject"]),
    default="team",
    show_default=True,
    help="What to group by.",
)
@click.option("--month", metavar="YYYY-MM", help="Month in UTC (default: this one).")
@click.option("--team", metavar="TEAM", help="Only of this team.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for a spreadsheet.")
@client_command
def report(reach: Reach, *, by: str, month: str | None, team: str | None, as_csv: bool) -> None:
    """
    Requests, tokens and cost of a month.

    \b
    Example:
      pilothouse usage report --by endpoint --month 2026-11
      pilothouse usage report --by key --csv > usage.csv
    """
    server = reach.server()
    query = {"by": by, "month": month, "team": team}
    if as_csv:
        with server.open("GET", "/admin/v1/usage", query=query, headers={"accept": "text/csv"}) as response:
            click.echo(response.read().decode(), nl=False)
        return
    found = server.get_object("/admin/v1/usage", query)
    lines = [line for line in found.get("lines", []) if isinstance(line, dict)]
    # By team, the group is the team.
    owner = () if by == "team" else ("team",)
    columns = (by, *owner, "requests", "errors", "input", "output", "cached", "cost")
    rows = []
    for line in lines:
        sums = line.get("sums") or {}
        tokens = [sums.get(f"{kind}_tokens", 0) for kind in ("input", "output", "cached")]
        cost = dollars(sums.get("cost_micro_usd", 0))
        whose = (line["team"],) if owner else ()
        rows.append((line["group"], *whose, sums.get("requests", 0), sums.get("errors", 0), *tokens, cost))
    reach.out.table(found, columns, rows)
