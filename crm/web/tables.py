"""Who may call: keys, and browsers that are signed in. Only the ways in need them, so they are not in `crm.models`."""

from datetime import datetime

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlmodel import Field

from crm import fields
from crm.models import Row


class ApiKey(Row, table=True):
    __tablename__ = "api_key"
    __table_args__ = (
        fields.one_of("role", fields.Role),
        CheckConstraint("(role = 'source') = (source_id IS NOT NULL)", name="source_id"),
        CheckConstraint("(role = 'operator') = (operator_id IS NOT NULL)", name="operator_id"),
        UniqueConstraint("hash"),
        {"sqlite_autoincrement": True},
    )
    name: str = Field(max_length=100)
    role: str = Field(max_length=16)
    source_id: int | None = Field(default=None, foreign_key="source.id", ondelete="CASCADE", sa_type=fields.BIG)
    operator_id: int | None = Field(default=None, foreign_key="operator.id", ondelete="CASCADE", sa_type=fields.BIG)
    prefix: str = Field(max_length=16)
    hash: str = Field(max_length=64)
    last_used_at: datetime | None = None


class BrowserSession(Row, table=True):
    """A browser that is signed in: `hash` is of the token in its cookie, `key_hash` of the key that began it."""

    __tablename__ = "browser_session"
    __table_args__ = (UniqueConstraint("hash"), {"sqlite_autoincrement": True})
    hash: str = Field(max_length=64)
    key_hash: str = Field(max_length=64)  # no foreign key: that of the settings has no row
    expires_at: datetime
    last_used_at: datetime
    user_agent: str | None = Field(max_length=200)
