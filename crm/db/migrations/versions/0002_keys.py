"""keys

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("name", AutoString(length=100), nullable=False),
        sa.Column("role", AutoString(length=16), nullable=False),
        sa.Column("source_id", BIG, nullable=True),
        sa.Column("operator_id", BIG, nullable=True),
        sa.Column("prefix", AutoString(length=16), nullable=False),
        sa.Column("hash", AutoString(length=64), nullable=False),
        sa.Column("last_used_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'source', 'operator', 'metrics')", name=op.f("ck_api_key_role")),
        sa.CheckConstraint("(role = 'source') = (source_id IS NOT NULL)", name=op.f("ck_api_key_source_id")),
        sa.CheckConstraint("(role = 'operator') = (operator_id IS NOT NULL)", name=op.f("ck_api_key_operator_id")),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.id"], name=op.f("fk_api_key_operator_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_api_key_source_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_key_hash")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("api_key")
