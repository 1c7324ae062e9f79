"""a team's day: sticky sources, shifts, acceptance, topics

Revision ID: 0008
Revises: 0007
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OLD_MOVES = " OR ".join(f"reason = '{old}'" for old in ("queued", "from_queue", "manual", "forced", "released"))
CHECKS = {
    ("source", "sticky"): "sticky IN ('off', 'prefer')",
    ("source", "accept_within"): "accept_within BETWEEN 1 AND 2592000",
    ("contact", "topic"): "length(topic) <= 100",
}
COLUMNS: list[tuple[str, sa.Column[Any]]] = [
    ("operator", sa.Column("on_shift", sa.Boolean(), server_default=sa.true(), nullable=False)),
    ("operator", sa.Column("shift_until", UTCDateTime(), nullable=True)),
    ("source", sa.Column("sticky", sa.String(length=8), server_default=sa.text("'off'"), nullable=False)),
    ("source", sa.Column("accept_within", sa.Integer(), nullable=True)),
    ("source", sa.Column("silence_pauses", sa.Boolean(), server_default=sa.false(), nullable=False)),
    ("contact", sa.Column("topic", AutoString(length=100), server_default=sa.text("''"), nullable=False)),
    ("contact", sa.Column("due_at", UTCDateTime(), nullable=True)),
    ("contact", sa.Column("is_sticky", sa.Boolean(), server_default=sa.false(), nullable=False)),
]
COUNTED = ["source_id", "operator_id", "created_at", "is_sticky"]
INDEXES: dict[
    str, tuple[list[Any], str, str]
] = {  # by name: the columns, which rows, and as in 0001 how many there are of a kind
    "ix_operator_shift_until": (["shift_until"], "shift_until IS NOT NULL", "100 1"),
    "ix_contact_due_at": (["due_at"], "due_at IS NOT NULL", "1000 1"),
    "ix_contact_queue_topic": (
        ["source_id", "topic", sa.text("priority DESC"), "id"],
        "status = 'pending'",
        "1000 30 10 10 1",
    ),
    "ix_contact_topic": (["topic", "id"], "topic <> ''", "100000 10000 1"),
    "ix_contact_topic_counts": ([*COUNTED, "topic"], "topic <> ''", "100000 1 1 1 1 1"),
    "ix_contact_sticky": (COUNTED, "is_sticky", "500000 1 1 1 1"),
}


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for table, column in COLUMNS:
        check = CHECKS.get((table, column.name))
        if check and is_sqlite:  # which takes a check only together with its column
            default = "" if column.nullable else f"DEFAULT {column.server_default.arg} NOT NULL"  # type: ignore[union-attr]
            kind = column.type.compile(op.get_bind().dialect)
            op.execute(
                f"ALTER TABLE {table} ADD COLUMN {column.name} {kind} {default}"
                f" CONSTRAINT ck_{table}_{column.name} CHECK ({check})"
            )
        else:
            op.add_column(table, column)
            if check:
                op.create_check_constraint(op.f(f"ck_{table}_{column.name}"), table, check)
    op.create_table(
        "shift_plan",
        sa.Column("operator_id", BIG, nullable=False),
        sa.Column("time_zone", AutoString(length=64), nullable=True),
        sa.Column("zone", AutoString(length=64), nullable=False),
        sa.Column("hours", sa.JSON(), nullable=False),
        sa.Column("exceptions", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.id"], name=op.f("fk_shift_plan_operator_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("operator_id", name=op.f("pk_shift_plan")),
    )
    rebuild_source_operator(with_topic=True)
    moves(f"({OLD_MOVES} OR reason = 'sticky' OR reason = 'silent')")
    for name, (columns, predicate, figures) in INDEXES.items():
        where = sa.text(predicate)
        op.create_index(name, table_of(name), columns, sqlite_where=where, postgresql_where=where)
        describe(table_of(name), name, figures)


def downgrade() -> None:
    # What only this version knows becomes what comes nearest to it.
    op.execute(STICKY_FROM_QUEUE)
    op.execute("UPDATE assignment SET reason = 'distributed' WHERE reason = 'sticky'")
    op.execute("UPDATE assignment SET reason = 'released' WHERE reason = 'silent'")
    op.execute("DELETE FROM assignment WHERE reason = 'unaccepted'")
    for name in INDEXES:
        op.drop_index(name, table_of(name))
    moves(f"({OLD_MOVES})")
    rebuild_source_operator(with_topic=False)
    op.drop_table("shift_plan")
    for table, column in reversed(COLUMNS):
        if op.get_bind().dialect.name != "sqlite" and (table, column.name) in CHECKS:
            op.drop_constraint(op.f(f"ck_{table}_{column.name}"), table)
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column.name}")


STICKY_FROM_QUEUE = """
    UPDATE assignment SET reason = 'from_queue' WHERE reason = 'sticky' AND EXISTS (
        SELECT 1 FROM assignment earlier
        WHERE earlier.contact_id = assignment.contact_id AND earlier.id < assignment.id
    )
"""


def table_of(index: str) -> str:
    return index.split("_")[1]


def describe(table: str, index: str, figures: str) -> None:
    """Tells SQLite how many rows of a kind a grown database has, as 0001 does."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"DELETE FROM sqlite_stat1 WHERE idx = '{index}'")  # noqa: S608
        op.execute(f"INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('{table}', '{index}', '{figures}')")  # noqa: S608


def moves(predicate: str) -> None:
    op.drop_index("ix_assignment_moves", "assignment")
    where = sa.text(predicate)
    op.create_index(
        "ix_assignment_moves",
        "assignment",
        ["created_at", "operator_id", "contact_id"],
        sqlite_where=where,
        postgresql_where=where,
    )
    describe("assignment", "ix_assignment_moves", "200000 1 1 1")


def rebuild_source_operator(with_topic: bool) -> None:
    """Anew with the other key; it has few rows. Down, the weights of topics are gone."""
    op.rename_table("source_operator", "old_source_operator")
    op.drop_index("ix_source_operator_operator_id", "old_source_operator")
    if op.get_bind().dialect.name != "sqlite":  # there names are of the whole schema
        for name in ("pk_source_operator", "fk_source_operator_source_id", "fk_source_operator_operator_id"):
            op.execute(f"ALTER TABLE old_source_operator RENAME CONSTRAINT {name} TO old_{name}")
    column: sa.Column[Any] = sa.Column("topic", AutoString(length=100), server_default=sa.text("''"), nullable=False)
    topic = [column] if with_topic else []
    key = ["source_id", *(column.name for column in topic), "operator_id"]
    checks = [sa.CheckConstraint("length(topic) <= 100", name=op.f("ck_source_operator_topic"))] if with_topic else []
    op.create_table(
        "source_operator",
        sa.Column("source_id", BIG, nullable=False),
        *topic,
        sa.Column("operator_id", BIG, nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.CheckConstraint("weight BETWEEN 0 AND 1000000", name=op.f("ck_source_operator_weight")),
        *checks,
        sa.ForeignKeyConstraint(
            ["operator_id"], ["operator.id"], name=op.f("fk_source_operator_operator_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["source.id"], name=op.f("fk_source_operator_source_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_source_operator")),
        sqlite_with_rowid=False,
    )
    old, plain = ("''", "") if with_topic else (None, " WHERE topic = ''")
    columns = ", ".join(key)
    values = columns if old is None else columns.replace("topic", old)
    op.execute(
        f"INSERT INTO source_operator ({columns}, weight) SELECT {values}, weight FROM old_source_operator{plain}"  # noqa: S608
    )
    op.drop_table("old_source_operator")
    op.create_index("ix_source_operator_operator_id", "source_operator", ["operator_id"])
    describe("source_operator", "source_operator", "300 10 10 1" if with_topic else "300 10 1")
    describe("source_operator", "ix_source_operator_operator_id", "300 3 1 1" if with_topic else "300 3 1")
