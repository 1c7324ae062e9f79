"""Runs the revisions on the connection that `crm.db` opened, inside its transaction."""

from alembic import context
from sqlmodel import SQLModel

import crm.models  # noqa: F401  (fills the metadata)

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
