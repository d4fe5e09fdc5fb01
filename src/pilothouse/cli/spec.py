"""`pilothouse spec`: what runs, as a file that could be given to `up --config`."""

import click
import msgspec

from pilothouse.cli.reach import Reach, client_command
from pilothouse.config import write_spec
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.spec import Spec


@click.command()
@client_command
def spec(reach: Reach) -> None:
    """
    Print what runs, as a spec file.

    \b
    Example:
      pilothouse spec > pilothouse.yaml
    """
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
    click.echo(write_spec(found).decode(), nl=False)
