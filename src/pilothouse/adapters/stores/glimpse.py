"""
A first look at the SQLite store: what is declared and which models are here.

Half a second is won at every start, for the engine is started from this while
SQLAlchemy is still being imported. It only reads, and whatever it does not
understand (no file, another schema) it leaves to the real store.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from pilothouse.domain.model import ModelVersion
from pilothouse.domain.spec import Spec
from pilothouse.ports.store import StoredSpec


class Glimpse(Struct, frozen=True, kw_only=True):
    spec: StoredSpec
    models: list[ModelVersion]
    """Newest first."""

    @property
    def is_complete(self) -> bool:
        """Whether every declared model is here, so that nothing has to be pulled."""
        here = {(model.name, model.source) for model in self.models}
        return here.issuperset(
            (name, model.source) for name, model in self.spec.spec.models.items() if model.source
        )


def glimpse(path: Path) -> Glimpse | None:
    """What the store holds; None when that cannot be said without the store itself."""
    try:
        # mode=rw, for a write-ahead log cannot be read without the right to write; nothing is made.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0.5)
        ) as connection:
            connection.execute("PRAGMA query_only = 1")
            row = connection.execute(
                "SELECT revision, document, author, time FROM specs ORDER BY revision DESC LIMIT 1"
            ).fetchone()
            documents = connection.execute("SELECT document FROM models ORDER BY created_at DESC").fetchall()
            if row is None:
                return None
            return Glimpse(
                spec=StoredSpec(
                    revision=row[0],
                    spec=msgspec.json.decode(row[1], type=Spec),
                    author=row[2],
                    time=row[3],
                ),
                models=[msgspec.json.decode(document, type=ModelVersion) for (document,) in documents],
            )
    except (sqlite3.Error, msgspec.MsgspecError):
        return None
