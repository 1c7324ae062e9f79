"""subscriptions, their deliveries, and the sender's lease

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IS_WAITING = sa.text("outcome = 'waiting'")


def upgrade() -> None:
    op.create_table(
        "subscription",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("name", AutoString(length=100), nullable=True),
        sa.Column("types", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("source_id", BIG, nullable=True),
        sa.Column("operator_id", BIG, nullable=True),
        sa.Column("language", sa.String(length=2), nullable=False),
        sa.Column("with_lead", sa.Boolean(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("target", AutoString(length=2000), nullable=False),
        sa.Column("secret", AutoString(length=100), nullable=True),
        sa.Column("old_secret", AutoString(length=100), nullable=True),
        sa.Column("old_secret_until", UTCDateTime(), nullable=True),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UTCDateTime(), nullable=True),
        sa.Column("blocked_by", BIG, nullable=True),
        sa.Column("off_reason", AutoString(length=16), nullable=True),
        sa.Column("alerted_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("ck_subscription_name")),
        sa.CheckConstraint("language IN ('en', 'ru')", name=op.f("ck_subscription_language")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_subscription_attempts")),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.id"], name=op.f("fk_subscription_operator_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["source.id"], name=op.f("fk_subscription_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "delivery",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("subscription_id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("event_id", BIG, nullable=True),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", AutoString(length=200), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("about_id", BIG, nullable=True),
        sa.CheckConstraint("kind IN ('events', 'test', 'notice')", name=op.f("ck_delivery_kind")),
        sa.CheckConstraint(
            "outcome IN ('waiting', 'delivered', 'failed', 'passed_over', 'skipped')", name=op.f("ck_delivery_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscription.id"], name=op.f("fk_delivery_subscription_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_delivery_subscription_id", "delivery", ["subscription_id", "id"])
    op.create_index("ix_delivery_created_at", "delivery", ["created_at"])
    op.create_index("ix_delivery_waiting", "delivery", ["id"], sqlite_where=IS_WAITING, postgresql_where=IS_WAITING)
    op.create_table(
        "lease",
        sa.Column("id", BIG, nullable=False),
        sa.Column("holder", AutoString(length=32), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_lease_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
    )
    if op.get_bind().dialect.name == "sqlite":  # as in 0001
        op.execute(
            "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES"
            " ('delivery', 'ix_delivery_subscription_id', '100000 10000 1'),"
            " ('delivery', 'ix_delivery_created_at', '100000 1'),"
            " ('delivery', 'ix_delivery_waiting', '1 1')"
        )


def downgrade() -> None:
    for table in ("lease", "delivery", "subscription"):
        op.drop_table(table)
