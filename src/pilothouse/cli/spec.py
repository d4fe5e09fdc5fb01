"""`pilothouse spec`: what runs, as a file that could be given to `up --config`."""

import json

import click
import msgspec

from pilothouse.app.engines import engine_drivers, option_types
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.schema import spec_schema
from pilothouse.cli.text import moment
from pilothouse.config import write_spec
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.spec import Spec


@click.command()
@click.option("--schema", is_flag=True, help="Print the JSON Schema of spec files instead, for editors.")
@client_command
def spec(reach: Reach, *, schema: bool) -> None:
    """
    Print what runs, as a spec file; its first lines name the revision, for `apply`, and its author.

    \b
    Example:
      pilothouse spec > pilothouse.yaml
      pilothouse spec --schema > pilothouse.schema.json
    """
    if schema:  # needs no server
        click.echo(json.dumps(spec_schema(option_types(engine_drivers())), indent=2, ensure_ascii=False))
        return
    view = reach.server().get_object("/admin/v1/spec")
    if reach.out.is_json:
        reach.out.json(view)
        return
    try:
        found = msgspec.convert(view.get("spec"), Spec)
    except msgspec.ValidationError as exc:
        raise OperationFailed(
            f"the server runs what this version cannot write: {exc}. fix: use --json"
        ) from exc
    click.echo(f"# revision {view.get('revision')}")
    click.echo(f"# declared by {view.get('author') or 'nobody known'} at {moment(view['time'])}")
    click.echo(write_spec(found).decode(), nl=False)
