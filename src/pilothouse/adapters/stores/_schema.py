"""
The schema's revision: a new database is made at the newest, an older one is migrated.

One query at the start when there is nothing to do; Alembic is only loaded when
there is something to migrate.
"""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from pilothouse.adapters.stores._tables import HEAD, metadata
from pilothouse.domain.errors import OperationFailed

MIGRATIONS = Path(__file__).parent / "migrations"
_stamp = Table(
    "alembic_version",
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)
"""As Alembic makes it."""


def bring_up_to_date(connection: Connection, name: str) -> None:
    """
    Make or migrate the schema, within the connection's transaction.

    Args:
        name: The database, for messages.

    Raises:
        OperationFailed: A newer Pilothouse made it, or it is another program's.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        metadata.create_all(connection)
        _stamp.create(connection)
        connection.execute(insert(_stamp).values(version_num=HEAD))
        return
    if _stamp.name not in tables:
        raise OperationFailed(
            f"{name} is the database of another program. fix: name another --home or --store"
        )
    if connection.execute(select(_stamp.c.version_num)).scalar() != HEAD:
        _migrate(connection, name)


def _migrate(connection: Connection, name: str) -> None:
    # Half a second to load, and only needed once after an upgrade.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "metadata": metadata})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise OperationFailed(
            f"{name} was made by a newer Pilothouse ({exc}). "
            "fix: upgrade this one, or restore a backup that it made"
        ) from exc
