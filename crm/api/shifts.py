"""Shifts: when an operator works (design.md, "A team's day"; what follows from a plan is in `day.shifts`)."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from sqlmodel import Field, Session, SQLModel

from crm.day.shifts import ShiftPlan, follow_plan
from crm.db.base import get_row
from crm.fields import Moment, TimeZone, Weekday, utcnow
from crm.models import Input, Operator
from crm.settings import Settings
from crm.web.answers import responses
from crm.web.auth import CallerDep
from crm.web.deps import PathId, ServiceDep, SessionDep, Write, writes

router = APIRouter(prefix="/operators", tags=["Operators"])

Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Hours(Input):
    weekday: Weekday = Field(description="0 = Monday.")
    begin: Clock
    end: Clock = Field(description="At or before the begin: on the next day.")


class ShiftException(Input):
    begin: Moment
    end: Moment
    works: bool = Field(description="true: an extra shift; false: absent.")

    @model_validator(mode="after")
    def _ends_after_its_begin(self) -> Self:
        if self.end <= self.begin:
            raise PydanticCustomError("end", "must end after its begin")
        return self


class ShiftsUpdate(Input):
    model_config = {
        "json_schema_extra": {
            "example": {
                "time_zone": "Europe/Berlin",
                "hours": [{"weekday": day, "begin": "09:00", "end": "18:00"} for day in range(5)],
                "exceptions": [
                    {"begin": "2026-12-24T00:00:00+01:00", "end": "2026-12-27T00:00:00+01:00", "works": False}
                ],
            }
        }
    }
    time_zone: TimeZone | None = Field(default=None, description="Null: that of the setting CRM_TIME_ZONE.")
    hours: list[Hours] = Field(default=[], max_length=100, description="None: always.")
    exceptions: list[ShiftException] = Field(default=[], max_length=200, description="Of two at once the later wins.")


class Shifts(SQLModel):
    """The plan, and what follows from it."""

    operator_id: int
    time_zone: str | None
    zone: str = Field(description="The time zone that the hours are in.")
    hours: list[Hours]
    exceptions: list[ShiftException]
    on_shift: bool
    shift_until: datetime | None


def _answer(session: Session, operator: Operator, settings: Settings) -> Shifts:
    plan = session.get(ShiftPlan, operator.id) or ShiftPlan(
        operator_id=operator.id, time_zone=None, zone=settings.time_zone, hours=[], exceptions=[]
    )
    state = {"operator_id": operator.id, "on_shift": operator.on_shift, "shift_until": operator.shift_until}
    return Shifts.model_validate(plan.model_dump() | state)


@router.get("/{operator_id}/shifts", summary="Get an operator's shifts", responses=responses(404))
def get_shifts(operator_id: PathId, session: SessionDep, caller: CallerDep, service: ServiceDep) -> Shifts:
    """The weekly hours with their exceptions; without any it always works."""
    caller.must_be(operator_id)
    return _answer(session, get_row(session, Operator, operator_id), service.settings)


@router.put("/{operator_id}/shifts", summary="Replace an operator's shifts", responses=responses(404))
@writes
def replace_shifts(write: Write, operator_id: PathId, body: ShiftsUpdate) -> Shifts:
    """The whole plan at once. Who is off shift gets nothing automatically, and keeps what it has.

    On shift by the new plan, it gets at once what waits for it. Whether it is active is another thing: to get anything
    it must be both.
    """
    operator = get_row(write.session, Operator, operator_id)
    plan = body.model_dump(mode="json") | {"zone": body.time_zone or write.settings.time_zone}
    write.session.merge(ShiftPlan(operator_id=operator_id, **plan))
    write.session.flush()
    follow_plan(write.session.connection(), operator_id, utcnow())
    write.session.refresh(operator)
    write.distributor.hand_out_to(operator_id)
    return _answer(write.session, operator, write.settings)
