"""a lead's data: merged leads, duplicates, what was done with them

Revision ID: 0009
Revises: 0008
"""

import ast
import re
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INDEXES: dict[
    str, tuple[str, list[str], str | None, str]
] = {  # by name: table, columns, which rows, and as in 0001 how many there are of a kind
    "ix_lead_merged_into": ("lead", ["merged_into"], "merged_into IS NOT NULL", "10000 2"),
    "ix_contact_note": ("contact", ["id"], "identity_note IS NOT NULL", "50000 1"),
    "ix_duplicate_lead_id": ("duplicate", ["lead_id"], None, "10000 2"),
    "ix_duplicate_other_id": ("duplicate", ["other_id"], None, "10000 2"),
    "ix_lead_act_lead_id": ("lead_act", ["lead_id"], None, "10000 2"),
    "ix_lead_act_other_id": ("lead_act", ["other_id"], None, "10000 2"),
}


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(
        f"ALTER TABLE lead ADD COLUMN merged_into {'INTEGER' if is_sqlite else 'BIGINT'}"
        " CONSTRAINT fk_lead_merged_into REFERENCES lead (id)"
    )
    op.create_table(
        "duplicate",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", AutoString(length=255), nullable=False),
        sa.Column("contact_id", BIG, nullable=False),
        sa.Column("lead_id", BIG, nullable=False),
        sa.Column("other_id", BIG, nullable=False),
        sa.CheckConstraint("kind IN ('external_id', 'phone', 'email')", name=op.f("ck_duplicate_kind")),
        sa.CheckConstraint("length(value) BETWEEN 1 AND 255", name=op.f("ck_duplicate_value")),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_duplicate_contact_id")),
        sa.ForeignKeyConstraint(["lead_id"], ["lead.id"], name=op.f("fk_duplicate_lead_id")),
        sa.ForeignKeyConstraint(["other_id"], ["lead.id"], name=op.f("fk_duplicate_other_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duplicate")),
        sa.UniqueConstraint("kind", "value", "lead_id", "other_id", name=op.f("uq_duplicate_kind")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "lead_act",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("act", sa.String(length=16), nullable=False),
        sa.Column("lead_id", BIG, nullable=False),
        sa.Column("other_id", BIG, nullable=True),
        sa.Column("who", AutoString(length=150), nullable=False),
        sa.Column("contacts", sa.Integer(), nullable=False),
        sa.Column("identifiers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("moved", sa.JSON(none_as_null=True), nullable=True),
        sa.CheckConstraint("act IN ('merged', 'unmerged', 'told_apart', 'forgotten')", name=op.f("ck_lead_act_act")),
        sa.CheckConstraint("(act = 'forgotten') = (other_id IS NULL)", name=op.f("ck_lead_act_other_id")),
        sa.ForeignKeyConstraint(["lead_id"], ["lead.id"], name=op.f("fk_lead_act_lead_id")),
        sa.ForeignKeyConstraint(["other_id"], ["lead.id"], name=op.f("fk_lead_act_other_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lead_act")),
        sqlite_autoincrement=True,
    )
    for name, (table, columns, predicate, figures) in INDEXES.items():
        where = sa.text(predicate) if predicate else None
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
        if is_sqlite:
            op.execute(f"DELETE FROM sqlite_stat1 WHERE idx = '{name}'")  # noqa: S608
            op.execute(f"INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('{table}', '{name}', '{figures}')")  # noqa: S608
    add_duplicates()


def downgrade() -> None:
    """A lead that is merged is one without identifiers and contacts then; that others may be one is in the notes."""
    for name in ("ix_lead_merged_into", "ix_contact_note"):
        op.drop_index(name, INDEXES[name][0])
    for table in ("duplicate", "lead_act"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(op.f("fk_lead_merged_into"), "lead")
    op.execute("ALTER TABLE lead DROP COLUMN merged_into")


NOTED = (
    "SELECT id, created_at, lead_id, identity_note FROM contact"
    " WHERE identity_note IS NOT NULL AND identity_note LIKE '%belongs to lead%' ORDER BY id"
)
# What a contact had that was another's: said at the end of its note, each value as `repr` writes it.
BELONGS = r"""(?:^|; )lead_(phone|email) ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*") belongs to lead (\d+)"""
AT_THE_END = re.compile(f"(?:{BELONGS})+$")


def add_duplicates() -> None:
    """From the notes of the contacts that are there."""
    table = sa.table(
        "duplicate",
        *(sa.column(name, BIG) for name in ("lead_id", "other_id", "contact_id")),
        *(sa.column("kind", sa.String()), sa.column("value", sa.String()), sa.column("created_at", UTCDateTime())),
    )
    noted = sa.text(NOTED).columns(created_at=UTCDateTime())
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for contact in op.get_bind().execute(noted).all():
        said = AT_THE_END.search(contact.identity_note)
        for kind, quoted, owner in re.findall(BELONGS, said[0]) if said else ():
            key = {"kind": kind, "value": ast.literal_eval(quoted), "lead_id": contact.lead_id, "other_id": int(owner)}
            rows.setdefault(tuple(key.values()), {**key, "contact_id": contact.id, "created_at": contact.created_at})
    if rows:
        op.get_bind().execute(sa.insert(table), list(rows.values()))
