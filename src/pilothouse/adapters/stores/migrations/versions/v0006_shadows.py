"""Records of shadows."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("records", sa.Column("shadow_of", sa.String(), server_default="", nullable=False))


def downgrade() -> None:
    """Going back is done from a backup: a downgrade would drop what the newer version keeps."""
    raise NotImplementedError("restore a backup that the older version made")
