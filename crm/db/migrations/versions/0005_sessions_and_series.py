"""sessions of browsers, and indexes for series

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IS_CLOSED = sa.text("closed_at IS NOT NULL")
IS_MOVE = sa.text(
    "(reason = 'queued' OR reason = 'from_queue' OR reason = 'manual' OR reason = 'forced' OR reason = 'released')"
)


def upgrade() -> None:
    op.create_table(
        "browser_session",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("hash", AutoString(length=64), nullable=False),
        sa.Column("key_hash", AutoString(length=64), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.Column("last_used_at", UTCDateTime(), nullable=False),
        sa.Column("user_agent", AutoString(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_browser_session")),
        sa.UniqueConstraint("hash", name=op.f("uq_browser_session_hash")),
        sqlite_autoincrement=True,
    )
    for table, index, columns, predicate in (
        ("contact", "ix_contact_closed_at", ["closed_at", "source_id", "operator_id"], IS_CLOSED),
        ("assignment", "ix_assignment_moves", ["created_at", "operator_id", "contact_id"], IS_MOVE),
    ):
        op.create_index(index, table, columns, sqlite_where=predicate, postgresql_where=predicate)
    if op.get_bind().dialect.name == "sqlite":  # as in 0001
        op.execute(
            "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES"
            " ('contact', 'ix_contact_closed_at', '1000000 1 1 1'),"
            " ('assignment', 'ix_assignment_moves', '200000 1 1 1')"
        )


def downgrade() -> None:
    op.drop_index("ix_assignment_moves", "assignment")
    op.drop_index("ix_contact_closed_at", "contact")
    op.drop_table("browser_session")
