"""Rollouts and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team", sa.String(), server_default="", nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
    )
    op.create_index("ix_rollouts_endpoint_started_at", "rollouts", ["endpoint", "started_at"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team", sa.String(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("subject_hash", sa.String(), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("sealing_key", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("team", "idempotency_key", name="uq_feedback_team_idempotency_key"),
    )
    op.create_index("ix_feedback_record_id", "feedback", ["record_id"], unique=False)
    op.create_index("ix_feedback_state_time", "feedback", ["state", "time"], unique=False)
    op.create_index("ix_feedback_team_time_id", "feedback", ["team", "time", "id"], unique=False)


def downgrade() -> None:
    """Going back is done from a backup: a downgrade would drop what the newer version keeps."""
    raise NotImplementedError("restore a backup that the older version made")
