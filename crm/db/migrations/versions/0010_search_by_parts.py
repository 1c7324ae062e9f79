"""search by parts: what PostgreSQL looks up, and what SQLite has to bring into its index

Revision ID: 0010
Revises: 0009
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

log = logging.getLogger("crm.db.search_index")

# The parts of three letters of a text, as crm/db/search.py says. In PL/pgSQL, which takes a sixth of what SQL takes.
FUNCTION = """
CREATE FUNCTION lead_search_trigrams(words text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    marks text = repeat(chr(2), 2);
    alike text = marks || lower(words COLLATE "C");
    found text[] = '{}';
BEGIN
    alike = replace(replace(replace(replace(alike, 'ß', 'ss'), 'ẞ', 'ss'), 'İ', 'i'), 'ı', 'i');
    alike = replace(replace(alike, chr(775), ''), 'ς', 'σ');
    alike = replace(replace(alike, ' ', ' ' || marks), '-', '-' || marks);
    FOR n IN 1 .. length(alike) - 2 LOOP
        found = found || substr(alike, n, 3);
    END LOOP;
    RETURN found;
END $$
"""
INDEXES = {
    f"ix_{table}_search": f"{table} USING gin (lead_search_trigrams({column})) WITH (gin_pending_list_limit = 256)"
    for table, column in (("lead", "name"), ("lead_identifier", "value"))
}
# When, on which table, whose words have changed; and what is noted of who was forgotten.
TRIGGERS = {
    "lead_search_added": ("INSERT ON lead", ["NEW.id"]),
    "lead_search_renamed": ("UPDATE OF name ON lead", ["NEW.id"]),
    "lead_search_deleted": ("DELETE ON lead", ["OLD.id"]),
    "lead_search_identifier_added": ("INSERT ON lead_identifier", ["NEW.lead_id"]),
    "lead_search_identifier_changed": ("UPDATE ON lead_identifier", ["OLD.lead_id", "NEW.lead_id"]),
    "lead_search_identifier_deleted": ("DELETE ON lead_identifier", ["OLD.lead_id"]),
    "lead_search_forgotten": ("INSERT ON lead_act WHEN NEW.act = 'forgotten'", ["-1"]),
}


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    if op.get_bind().dialect.name == "sqlite":  # `prepare` of crm/db/search_index.py makes the index, if it can be made
        op.create_table("lead_search_noted", sa.Column("lead_id", sa.Integer(), primary_key=True))
        for name, (event, noted) in TRIGGERS.items():
            inserts = "".join(f"INSERT OR IGNORE INTO lead_search_noted VALUES ({lead_id}); " for lead_id in noted)  # noqa: S608
            run(f"CREATE TRIGGER {name} AFTER {event} BEGIN {inserts}END")
        return
    log.info("the index of the search is made, which takes a minute for a million leads")
    run("SET LOCAL maintenance_work_mem = '256MB'")
    run(FUNCTION)
    for name, index in INDEXES.items():
        run(f"CREATE INDEX {name} ON {index}")


def downgrade() -> None:
    run = op.get_bind().exec_driver_sql
    if op.get_bind().dialect.name == "sqlite":
        # "no such module" without FTS5: drop it as running.md says, for left there it would grow old unnoticed.
        run("DROP TABLE IF EXISTS lead_search")
        for name in TRIGGERS:
            run(f"DROP TRIGGER {name}")
        run("DROP TABLE lead_search_noted")
        return
    for name in INDEXES:
        run(f"DROP INDEX {name}")
    run("DROP FUNCTION lead_search_trigrams")
