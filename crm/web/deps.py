"""What route handlers ask for."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import Depends, Path, Request
from pydantic import AfterValidator
from sqlalchemy import func
from sqlmodel import Field, Session, SQLModel

from crm.day.due import catch_up
from crm.db.base import Database
from crm.fields import Moment, utcnow, within_64_bits
from crm.outbox.feed import Feed
from crm.outbox.sender import Sender
from crm.queue import Distributor
from crm.settings import Settings

T = TypeVar("T")
BEFORE_ALL, FOREVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class Service(NamedTuple):
    """What lives as long as the app."""

    settings: Settings
    database: Database
    rng: random.Random
    feed: Feed
    sender: Sender


async def get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


async def get_session(service: ServiceDep) -> AsyncIterator[Session]:
    async with service.database.read() as session:
        yield session


# For reading only: writes go through Database.write. Closed before the answer is sent, however slow its receiver is.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


class Paging(SQLModel):
    """The part of a list that is asked for. An unknown query parameter is refused: a mistyped filter would show all."""

    model_config = {"extra": "forbid"}
    skip: Annotated[int, AfterValidator(within_64_bits)] = Field(
        default=0, ge=0, description="How many to leave out at the start."
    )
    limit: int = Field(default=100, ge=1, le=1000, description="How many at most.")

    def of(self, statement: Any) -> Any:
        return statement.offset(self.skip).limit(self.limit)


class Period(SQLModel):
    """Contacts and leads created at or after `since` and before `until`."""

    model_config = {"extra": "forbid"}
    since: Moment | None = Field(default=None, description="ISO 8601 with an offset.")
    until: Moment | None = Field(default=None, description="ISO 8601 with an offset.")

    @property
    def is_all_time(self) -> bool:
        return self.since is None and self.until is None

    @property
    def is_short(self) -> bool:
        return self.since is not None and (self.until or utcnow()) - self.since < timedelta(days=31)

    def by_time(self, column: Any) -> list[Any]:
        """The conditions that keep what was created in the period; SQLite takes an index by time only for two ends."""
        return [column >= (self.since or BEFORE_ALL), column < (self.until or FOREVER)]

    def on(self, column: Any) -> list[Any]:
        """The same; in no index by time if the period is long, for one by what they are grouped by is faster then."""
        if self.is_short:
            return self.by_time(column)
        column = func.coalesce(column, column)
        since = [column >= self.since] if self.since else []
        return since + ([column < self.until] if self.until else [])


class Write(NamedTuple):
    """What a handler that changes something works with; see `writes`."""

    session: Session
    distributor: Distributor
    settings: Settings


def writes(handler: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """Makes a handler, whose first parameter is a Write and whose others are those of the request, one transaction.

    It runs alone, in a thread, and is answered when its changes are on the disk. What it raises undoes them.
    """

    @wraps(handler)
    async def route(service: Service, **request: Any) -> T:
        def work(session: Session) -> T:
            catch_up(session.connection(), service.rng)
            distributor = Distributor(session.connection(), service.rng)
            return handler(Write(session, distributor, service.settings), **request)

        return await service.database.write(work)

    _, *parameters = signature(handler).parameters.values()
    service = Parameter("service", Parameter.KEYWORD_ONLY, annotation=ServiceDep)
    route.__signature__ = signature(handler).replace(parameters=[*parameters, service])  # type: ignore[attr-defined]
    return route


PathId = Annotated[int, Path(ge=1), AfterValidator(within_64_bits)]
