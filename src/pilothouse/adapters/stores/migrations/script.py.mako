"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Going back is done from a backup: a downgrade would drop what the newer version keeps."""
    raise NotImplementedError("restore a backup that the older version made")
