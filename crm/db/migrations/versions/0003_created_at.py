"""indexes of contacts and leads by time

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_contact_created_at", "contact", ["created_at", "source_id", "operator_id"], unique=False)
    op.create_index("ix_lead_created_at", "lead", ["created_at"], unique=False)
    if op.get_bind().dialect.name == "sqlite":  # as in 0001
        op.execute(
            "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES"
            " ('contact', 'ix_contact_created_at', '1000000 1 1 1'), ('lead', 'ix_lead_created_at', '700000 1')"
        )


def downgrade() -> None:
    op.drop_index("ix_lead_created_at", "lead")
    op.drop_index("ix_contact_created_at", "contact")
