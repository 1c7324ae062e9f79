"""the core tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IS_OPEN = sa.text("status IN ('new', 'in_progress')")
IS_PENDING = sa.text("status = 'pending'")
HAS_WAITED = sa.text("assigned_at > created_at")
HAS_EVENT = sa.text("event_id IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "lead",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("name", AutoString(length=255), nullable=True),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 255", name=op.f("ck_lead_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lead")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "operator",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("name", AutoString(length=100), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("max_load", sa.Integer(), nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("ck_operator_name")),
        sa.CheckConstraint("max_load BETWEEN 0 AND 100000", name=op.f("ck_operator_max_load")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "source",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("name", AutoString(length=100), nullable=False),
        sa.Column("bot_id", AutoString(length=100), nullable=True),
        sa.Column("description", AutoString(length=1000), nullable=True),
        sa.CheckConstraint("length(bot_id) BETWEEN 1 AND 100", name=op.f("ck_source_bot_id")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("ck_source_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source")),
        sa.UniqueConstraint("bot_id", name=op.f("uq_source_bot_id")),
        sa.UniqueConstraint("name", name=op.f("uq_source_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "contact",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("message", AutoString(length=10000), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("event_id", AutoString(length=255), nullable=True),
        sa.Column("lead_id", BIG, nullable=False),
        sa.Column("source_id", BIG, nullable=False),
        sa.Column("operator_id", BIG, nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("identity_note", AutoString(), nullable=True),
        sa.Column("assigned_at", UTCDateTime(), nullable=True),
        sa.Column("closed_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name=op.f("ck_contact_closed_at")),
        sa.CheckConstraint(
            "CASE status WHEN 'pending' THEN operator_id IS NULL "
            "WHEN 'closed' THEN TRUE ELSE operator_id IS NOT NULL END",
            name=op.f("ck_contact_operator_id"),
        ),
        sa.CheckConstraint("status IN ('pending', 'new', 'in_progress', 'closed')", name=op.f("ck_contact_status")),
        sa.CheckConstraint("length(event_id) BETWEEN 1 AND 255", name=op.f("ck_contact_event_id")),
        sa.CheckConstraint("length(message) <= 10000", name=op.f("ck_contact_message")),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_contact_priority")),
        sa.ForeignKeyConstraint(["lead_id"], ["lead.id"], name=op.f("fk_contact_lead_id")),
        sa.ForeignKeyConstraint(["operator_id"], ["operator.id"], name=op.f("fk_contact_operator_id")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_contact_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contact")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_contact_counts", "contact", ["source_id", "operator_id", "id", "created_at"], unique=False)
    op.create_index("ix_contact_lead_id", "contact", ["lead_id", "id"], unique=False)
    op.create_index(
        "ix_contact_load",
        "contact",
        ["operator_id", "id", "status"],
        unique=False,
        sqlite_where=IS_OPEN,
        postgresql_where=IS_OPEN,
    )
    op.create_index("ix_contact_operator_id", "contact", ["operator_id", "id", "status"], unique=False)
    queue = [sa.text("priority DESC"), sa.text("id")]
    for name, columns in (("ix_contact_queue", queue), ("ix_contact_queue_source", [sa.text("source_id"), *queue])):
        op.create_index(name, "contact", columns, sqlite_where=IS_PENDING, postgresql_where=IS_PENDING)
    op.create_index("ix_contact_source_id", "contact", ["source_id", "id", "status"], unique=False)
    op.create_index("ix_contact_status", "contact", ["status", "id"], unique=False)
    op.create_index(
        "ix_contact_waited",
        "contact",
        ["created_at", "assigned_at"],
        unique=False,
        sqlite_where=HAS_WAITED,
        postgresql_where=HAS_WAITED,
    )
    op.create_index(
        "uq_contact_event_id",
        "contact",
        ["source_id", "event_id"],
        unique=True,
        sqlite_where=HAS_EVENT,
        postgresql_where=HAS_EVENT,
    )
    op.create_table(
        "lead_identifier",
        sa.Column("kind", AutoString(length=16), nullable=False),
        sa.Column("value", AutoString(length=255), nullable=False),
        sa.Column("lead_id", BIG, nullable=False),
        sa.CheckConstraint("kind IN ('external_id', 'phone', 'email')", name=op.f("ck_lead_identifier_kind")),
        sa.CheckConstraint("length(value) BETWEEN 1 AND 255", name=op.f("ck_lead_identifier_value")),
        sa.ForeignKeyConstraint(["lead_id"], ["lead.id"], name=op.f("fk_lead_identifier_lead_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("kind", "value", name=op.f("pk_lead_identifier")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_lead_identifier_lead_id", "lead_identifier", ["lead_id", "kind", "value"], unique=False)
    op.create_table(
        "source_operator",
        sa.Column("source_id", BIG, nullable=False),
        sa.Column("operator_id", BIG, nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.CheckConstraint("weight BETWEEN 0 AND 1000000", name=op.f("ck_source_operator_weight")),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.id"], name=op.f("fk_source_operator_operator_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["source.id"], name=op.f("fk_source_operator_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source_id", "operator_id", name=op.f("pk_source_operator")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_source_operator_operator_id", "source_operator", ["operator_id"], unique=False)
    op.create_table(
        "assignment",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("contact_id", BIG, nullable=False),
        sa.Column("operator_id", BIG, nullable=True),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "reason IN ('distributed', 'queued', 'from_queue', 'manual', 'forced', 'released')",
            name=op.f("ck_assignment_reason"),
        ),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_assignment_contact_id")),
        sa.ForeignKeyConstraint(["operator_id"], ["operator.id"], name=op.f("fk_assignment_operator_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignment")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_assignment_contact_id", "assignment", ["contact_id", "id"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        _describe_a_grown_database()


def _describe_a_grown_database() -> None:
    """Fixes SQLite's picture of the data: it has none before ANALYZE, and then scans histories where a few rows do.

    Each line is the number of rows in the index, and then how many of them share its first column, its first two, ...
    """
    op.execute("ANALYZE")
    for table, index, numbers in (
        ("operator", None, "100"),
        ("source", None, "30"),
        ("source_operator", "source_operator", "300 10 1"),
        ("source_operator", "ix_source_operator_operator_id", "300 3 1"),
        ("lead", None, "700000"),
        ("lead_identifier", "lead_identifier", "1400000 470000 1"),
        ("lead_identifier", "ix_lead_identifier_lead_id", "1400000 2 1 1"),
        ("contact", "ix_contact_load", "2000 20 1 1"),
        ("contact", "ix_contact_queue", "1000 100 1"),
        ("contact", "ix_contact_queue_source", "1000 30 10 1"),
        ("contact", "ix_contact_lead_id", "1000000 2 1"),
        ("contact", "ix_contact_source_id", "1000000 33000 1 1"),
        ("contact", "ix_contact_operator_id", "1000000 10000 1 1"),
        ("contact", "ix_contact_status", "1000000 250000 1"),
        ("contact", "ix_contact_counts", "1000000 33000 3300 1 1"),
        ("contact", "ix_contact_waited", "100000 1 1"),
        ("contact", "uq_contact_event_id", "1000000 33000 1"),
        ("assignment", "ix_assignment_contact_id", "1500000 2 1"),
    ):
        op.execute(
            sa.text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (:tbl, :idx, :stat)").bindparams(
                tbl=table, idx=index, stat=numbers
            )
        )


def downgrade() -> None:
    for table in ("assignment", "source_operator", "lead_identifier", "contact", "source", "operator", "lead"):
        op.drop_table(table)
