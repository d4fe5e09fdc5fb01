"""
Secrets of providers, sealed.

A deployment named a file that held its token. What is stored names a secret now,
called as the file was: until it is set, the deployment says which one is missing.
"""

import json
from pathlib import PurePath
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("team", sa.String(), server_default="", nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secrets"),
    )
    specs = sa.table("specs", sa.column("revision"), sa.column("document"))
    connection = op.get_bind()
    for revision_, document in connection.execute(sa.select(specs.c.revision, specs.c.document)).all():
        if "token_file" in document:
            renamed = json.dumps(_renamed(json.loads(document)))
            connection.execute(sa.update(specs).where(specs.c.revision == revision_).values(document=renamed))


def _renamed(spec: dict[str, Any]) -> dict[str, Any]:
    for deployment in spec.get("deployments", {}).values():
        options = deployment.get("engine_options", {})
        if path := options.pop("token_file", ""):
            options["secret"] = PurePath(path).stem or "token"
    return spec
