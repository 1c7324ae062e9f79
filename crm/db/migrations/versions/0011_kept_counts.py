"""counts of what is closed, kept for statistics of all time

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Empty: the next start of the service counts."""
    op.create_table(
        "contact_count",
        sa.Column("source_id", BIG, nullable=False),
        sa.Column("operator_id", BIG, nullable=False),
        sa.Column("topic", AutoString(length=100), nullable=False),
        sa.Column("is_sticky", sa.Boolean(), nullable=False),
        *(sa.Column(name, BIG, nullable=False) for name in ("contacts", "assigned", "waited", "up_to")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_contact_count_source_id")),
        sa.PrimaryKeyConstraint("source_id", "operator_id", "topic", "is_sticky", name=op.f("pk_contact_count")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uncounted_contact",
        sa.Column("contact_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_uncounted_contact_contact_id")),
        sa.PrimaryKeyConstraint("contact_id", name=op.f("pk_uncounted_contact")),
    )
    if op.get_bind().dialect.name == "sqlite":  # as in 0001
        op.execute(
            "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('uncounted_contact', NULL, '2000'),"
            " ('contact_count', 'contact_count', '1000 30 3 2 1')"
        )


def downgrade() -> None:
    op.drop_table("uncounted_contact")
    op.drop_table("contact_count")
