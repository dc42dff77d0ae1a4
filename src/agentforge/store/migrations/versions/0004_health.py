"""What probes of environments found, in the order in which they were made."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "health",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("framework", sa.Text()),
        sa.Column("release", sa.Text()),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("files_s", sa.Double()),
        sa.Column("start_s", sa.Double()),
        sa.Column("run_s", sa.Double()),
        sa.Column("cpu_s", sa.Double()),
        sa.PrimaryKeyConstraint("number", name="pk_health"),
    )
    columns = ["project", "machine", "environment", "number"]
    op.create_index("ix_health_project_machine_environment_number", "health", columns)
