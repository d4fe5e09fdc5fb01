"""How often cached answers were purged, so that a restart revives none of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "cache_purges",
        sa.Column("team", sa.String(), server_default="", nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team", "endpoint", name="pk_cache_purges"),
    )
