"""What route handlers ask for."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, AwareDatetime
from sqlmodel import Field, Session, SQLModel

from crm.database import Database
from crm.fields import MAX_ID
from crm.settings import Settings


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def get_rng(request: Request) -> random.Random:
    rng: random.Random = request.app.state.rng
    return rng


DatabaseDep = Annotated[Database, Depends(get_database)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
RngDep = Annotated[random.Random, Depends(get_rng)]


async def get_session(database: DatabaseDep) -> AsyncIterator[Session]:
    with database.read() as session:
        yield session


# For reading only: writes go through Database.write. Closed before the answer is sent, however slow its receiver is.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Page(SQLModel):
    """The part of a list that is asked for. An unknown query parameter is refused: a mistyped filter would show all."""

    model_config = {"extra": "forbid"}
    skip: int = Field(default=0, ge=0, le=MAX_ID, description="How many to leave out at the start.")
    limit: int = Field(default=100, ge=1, le=1000, description="How many at most.")

    def of(self, statement: Any) -> Any:
        return statement.offset(self.skip).limit(self.limit)


class Period(SQLModel):
    """Contacts and leads created at or after `since` and before `until`."""

    model_config = {"extra": "forbid"}
    since: Moment | None = Field(default=None, description="ISO 8601 with an offset.")
    until: Moment | None = Field(default=None, description="ISO 8601 with an offset.")

    def on(self, column: Any) -> list[Any]:
        """The conditions that keep what was created in the period."""
        since = [column >= self.since] if self.since else []
        until = [column < self.until] if self.until else []
        return since + until


PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
