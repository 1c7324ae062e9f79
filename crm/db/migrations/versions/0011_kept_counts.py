"""counts of what is closed, kept for statistics of all time; what only these read in other order is there by time

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
INDEXES: dict[str, tuple[str, list[str]]] = {  # by name: which rows, and what comes after the time
    "ix_contact_sticky": ("is_sticky", []),
    "ix_contact_topic_counts": ("topic <> ''", ["topic"]),
}


def upgrade() -> None:
    """The tables stay empty: `count_all` of crm/db/counts.py comes after the migration."""
    make_anew(["created_at", "source_id", "operator_id", "is_sticky"])
    op.create_table(
        "contact_count",
        sa.Column("source_id", BIG, nullable=False),
        sa.Column("operator_id", BIG, nullable=False),
        sa.Column("topic", AutoString(length=100), nullable=False),
        sa.Column("is_sticky", sa.Boolean(), nullable=False),
        *(sa.Column(name, BIG, nullable=False) for name in ("contacts", "assigned", "waited")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_contact_count_source_id")),
        sa.PrimaryKeyConstraint("source_id", "operator_id", "topic", "is_sticky", name=op.f("pk_contact_count")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counted_up_to",
        sa.Column("id", BIG, nullable=False),
        sa.Column("contact_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_counted_up_to_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counted_up_to")),
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
    make_anew(["source_id", "operator_id", "created_at", "is_sticky"])
    op.drop_table("uncounted_contact")
    op.drop_table("counted_up_to")
    op.drop_table("contact_count")


def make_anew(columns: list[str]) -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:  # which forgets with an index what 0008 told it of that
        op.execute("CREATE TEMP TABLE figures AS SELECT * FROM sqlite_stat1 WHERE tbl = 'contact'")
    for name, (predicate, further) in INDEXES.items():
        where = sa.text(predicate)
        op.drop_index(name, "contact")
        op.create_index(name, "contact", [*columns, *further], sqlite_where=where, postgresql_where=where)
    if is_sqlite:
        op.execute("DELETE FROM sqlite_stat1 WHERE tbl = 'contact'")
        op.execute("INSERT INTO sqlite_stat1 SELECT * FROM figures")
        op.execute("DROP TABLE figures")
