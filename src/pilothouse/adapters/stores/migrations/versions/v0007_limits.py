"""Limits of keys and teams."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("limits", sa.Text(), nullable=True))
    op.add_column("teams", sa.Column("limits", sa.Text(), nullable=True))
    op.add_column("teams", sa.Column("per_subject", sa.Text(), nullable=True))
