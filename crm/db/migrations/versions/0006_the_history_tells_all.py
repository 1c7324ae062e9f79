"""the history tells all that happens to a contact

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import UTCDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IS_NOT_OVERDUE_YET = sa.text("status = 'pending' AND waits_since IS NOT NULL")
OLD = "'distributed', 'queued', 'from_queue', 'manual', 'forced', 'released'"
NEW = f"{OLD}, 'sticky', 'silent', 'started', 'closed', 'overdue', 'unaccepted'"
INDEXES = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'assignment' AND sql IS NOT NULL"
WAITS_SINCE = "SELECT max(created_at) FROM assignment WHERE contact_id = contact.id"


def upgrade() -> None:
    allow(NEW)
    op.add_column("contact", sa.Column("waits_since", UTCDateTime(), nullable=True))
    op.execute(f"UPDATE contact SET waits_since = ({WAITS_SINCE}) WHERE status = 'pending'")  # noqa: S608
    op.create_index(
        "ix_contact_waits_since",
        "contact",
        ["waits_since"],
        unique=False,
        sqlite_where=IS_NOT_OVERDUE_YET,
        postgresql_where=IS_NOT_OVERDUE_YET,
    )
    if op.get_bind().dialect.name == "sqlite":  # as in 0001
        op.execute("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('contact', 'ix_contact_waits_since', '1000 1')")


def downgrade() -> None:
    op.drop_index("ix_contact_waits_since", "contact")
    op.execute("ALTER TABLE contact DROP COLUMN waits_since")
    op.execute(f"DELETE FROM assignment WHERE reason NOT IN ({OLD})")  # noqa: S608
    allow(OLD)


def allow(reasons: str) -> None:
    """SQLite can't change a check: there the table is made anew, with all that it had besides its rows."""
    check = f"reason IN ({reasons})"
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_assignment_reason"), "assignment")
        op.create_check_constraint(op.f("ck_assignment_reason"), "assignment", check)
        return
    last_id = "SELECT 'assignment', seq FROM sqlite_sequence WHERE name = 'old_assignment'"
    op.execute("CREATE TEMP TABLE figures AS SELECT * FROM sqlite_stat1 WHERE tbl = 'assignment'")
    indexes = op.get_bind().execute(sa.text(INDEXES)).scalars().all()
    op.rename_table("assignment", "old_assignment")
    op.create_table(
        "assignment",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("contact_id", BIG, nullable=False),
        sa.Column("operator_id", BIG, nullable=True),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.CheckConstraint(check, name=op.f("ck_assignment_reason")),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_assignment_contact_id")),
        sa.ForeignKeyConstraint(["operator_id"], ["operator.id"], name=op.f("fk_assignment_operator_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignment")),
        sqlite_autoincrement=True,
    )
    columns = "id, created_at, contact_id, operator_id, reason, candidates"
    op.execute(f"INSERT INTO assignment ({columns}) SELECT {columns} FROM old_assignment ORDER BY id")  # noqa: S608
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'assignment'")
    op.execute(f"INSERT INTO sqlite_sequence (name, seq) {last_id}")
    op.drop_table("old_assignment")
    for index in indexes:
        op.execute(index)
    op.execute("DELETE FROM sqlite_stat1 WHERE tbl IN ('assignment', 'old_assignment')")
    op.execute("INSERT INTO sqlite_stat1 SELECT * FROM figures")
    op.execute("DROP TABLE figures")
