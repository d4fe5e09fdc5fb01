"""
From each revision of the schema to the newest, with rows, in both databases.

Which revisions there are, the scripts say: a new one is tested without a change here.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, insert, inspect, select
from sqlalchemy.pool import NullPool
from sqlalchemy.types import Boolean, Float, Integer, LargeBinary

from fixtures_postgres import PASSWORD, PostgresServer
from pilothouse.adapters.stores._schema import MIGRATIONS
from pilothouse.adapters.stores._tables import HEAD, metadata
from pilothouse.adapters.stores.postgresql import PostgresStore
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.domain.spec import DEFAULT_SPEC
from pilothouse.ports.store import Store
from pilothouse.testing.examples import make_model

DOCUMENTS = {
    "specs": msgspec.json.encode(DEFAULT_SPEC).decode(),
    "models": msgspec.json.encode(make_model("x", "x")).decode(),
}
"""What a migration of a document may want to read; other texts are one letter."""


def config_of(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection, "metadata": metadata})
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


REVISIONS = [
    script.revision for script in reversed(list(ScriptDirectory.from_config(config_of()).walk_revisions()))
]


class Place:
    """A database of one kind: raw, and as the store that the program opens."""

    def __init__(self, engine: Engine, open_store: Callable[[], Store]) -> None:
        self.engine = engine
        self.open_store = open_store

    def upgrade(self, revision: str) -> None:
        with self.engine.begin() as connection:
            command.upgrade(config_of(connection), revision)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        reflected = MetaData()
        with self.engine.connect() as connection:
            reflected.reflect(connection)
            return {
                table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
                for table in reflected.sorted_tables
            }

    def schema(self) -> dict[str, Any]:
        """Tables as the database tells them, in no order."""
        found: dict[str, Any] = {}
        with self.engine.connect() as connection:
            looked = inspect(connection)
            for table in looked.get_table_names():
                found[table] = {
                    "columns": {
                        column["name"]: (
                            repr(column["type"]),
                            column["nullable"],
                            str(column["default"] or "").partition("::")[0],
                        )
                        for column in looked.get_columns(table)
                    },
                    "key": looked.get_pk_constraint(table),
                    "foreign": sorted(map(str, looked.get_foreign_keys(table))),
                    "unique": sorted(map(str, looked.get_unique_constraints(table))),
                    "indexes": sorted(
                        (
                            str(index["name"]),
                            str(index["column_names"]),
                            str(index["unique"]),
                            *(str(option) for option in index.get("dialect_options", {}).values()),
                        )
                        for index in looked.get_indexes(table)
                    ),
                }
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    engines: list[Engine] = []

    def in_sqlite() -> Place:
        path = tmp_path / f"{len(engines)}.db"
        engines.append(create_engine(f"sqlite:///{path}", poolclass=NullPool))
        return Place(engines[-1], lambda: SqliteStore(path, reserve_bytes=0))

    def in_postgresql() -> Place:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = request.getfixturevalue("make_database")()
        engines.append(
            create_engine("postgresql+psycopg://", creator=lambda: server.connect(name), poolclass=NullPool)
        )
        return Place(engines[-1], lambda: PostgresStore(server.url(name), password=lambda: PASSWORD))

    yield in_sqlite if request.param == "sqlite" else in_postgresql
    for engine in engines:
        engine.dispose()


def example(table: Table) -> dict[str, Any]:
    """A row; all texts are the same, so that foreign keys lead somewhere."""
    values: dict[str, Any] = {}
    for column in table.columns:
        kind = column.type
        if isinstance(kind, Boolean):
            values[column.name] = True
        elif isinstance(kind, Float):
            values[column.name] = 1.5
        elif isinstance(kind, Integer):
            values[column.name] = 7
        elif isinstance(kind, LargeBinary):
            values[column.name] = b"\x00x\xff"
        else:
            values[column.name] = DOCUMENTS.get(table.name, "x") if column.name == "document" else "x"
    return values


def fill(engine: Engine) -> None:
    reflected = MetaData()
    with engine.begin() as connection:
        reflected.reflect(connection)
        for table in reflected.sorted_tables:
            if table.name != "alembic_version":
                connection.execute(insert(table).values(**example(table)))


@pytest.mark.parametrize("revision", REVISIONS)
def test_from_each_revision_every_row_comes_along(make_place, revision):
    place = make_place()
    place.upgrade(revision)
    fill(place.engine)
    before = place.rows()

    place.open_store().close()

    after = place.rows()
    assert after.pop("alembic_version") == [{"version_num": HEAD}]
    before.pop("alembic_version")
    assert set(before) <= set(after), "a table was lost"
    for table, (row,) in before.items():
        (now,) = after[table]
        kept = {name: value for name, value in row.items() if name in now and name != "document"}
        assert {name: now[name] for name in kept} == kept


def test_migrations_from_nothing_end_in_the_same_schema_as_a_fresh_database(make_place):
    fresh, migrated = make_place(), make_place()

    fresh.open_store().close()
    migrated.upgrade("head")

    assert migrated.schema() == fresh.schema()


def test_what_was_migrated_can_be_used(make_place):
    place = make_place()
    place.upgrade(REVISIONS[0])

    store = place.open_store()

    with store.unit() as unit:
        assert unit.specs.current() is None
        stored = unit.specs.put(DEFAULT_SPEC, expected_revision=0, author="ada", now=1.0)
    with store.unit() as unit:
        assert unit.specs.current() == stored
    store.close()


def test_a_token_file_became_the_name_of_a_secret(make_place):
    place = make_place()
    place.upgrade("0007")
    options = {"base_url": "https://api.example.com/v1", "max_inflight": 3}
    deployments = {
        "cloud": {
            "engine": "openai",
            "provider_model": "m",
            "engine_options": {**options, "token_file": "/run/secrets/provider.key"},
        },
        "open": {"engine": "openai", "provider_model": "m", "engine_options": options},
    }
    kept = msgspec.json.encode({"version": 1, "deployments": deployments}).decode()
    reflected = MetaData()
    with place.engine.begin() as connection:
        reflected.reflect(connection)
        specs = reflected.tables["specs"]
        connection.execute(insert(specs).values(**example(specs) | {"document": kept}))

    store = place.open_store()

    with store.unit() as unit:
        found = unit.specs.current()
        assert unit.secrets.all() == []
    store.close()
    assert found is not None
    given = {name: dict(one.engine_options) for name, one in found.spec.deployments.items()}
    assert given == {"cloud": {**options, "secret": "provider"}, "open": options}
