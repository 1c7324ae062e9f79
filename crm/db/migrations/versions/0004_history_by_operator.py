"""an index of the history by operator

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_assignment_operator_id", "assignment", ["operator_id"], unique=False)
    if op.get_bind().dialect.name == "sqlite":  # as in 0001
        op.execute(
            "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES"
            " ('assignment', 'ix_assignment_operator_id', '1500000 15000')"
        )


def downgrade() -> None:
    op.drop_index("ix_assignment_operator_id", "assignment")
