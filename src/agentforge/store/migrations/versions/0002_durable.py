"""Durable runs: effects that a run has left, when a lease was renewed, answers to use again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table; what is there stays as it is."""
    op.add_column("effects", sa.Column("voided", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("projects", sa.Column("renewed_at", sa.Double(), nullable=False, server_default="0"))
    op.create_table(
        "responses",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("response_blob", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("project", "key", name="pk_responses"),
    )
