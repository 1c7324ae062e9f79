"""Keys: who may call what. What a key of each role may do is decided in `web.auth`."""

import secrets
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from sqlmodel import Field, Session, col, select

from crm.db.base import get_row
from crm.events import note
from crm.fields import Id, Name, Role
from crm.models import Input, Operator, Record, Source
from crm.web.answers import responses
from crm.web.auth import digest_of
from crm.web.deps import Paging, PathId, SessionDep, Write, writes
from crm.web.tables import ApiKey

router = APIRouter(prefix="/keys", tags=["Keys"])


class KeyCreate(Input):
    """A source's key names its source_id, an operator's its operator_id, the others neither."""

    model_config = {"json_schema_extra": {"example": {"role": "source", "source_id": 1, "name": "shop bot"}}}
    role: Role
    name: Name = Field(description="What it is for: 1-100 characters.")
    source_id: Id | None = None
    operator_id: Id | None = None

    @model_validator(mode="after")
    def _owner_fits_role(self) -> Self:
        for role in ("source", "operator"):
            if (self.role == role) != (getattr(self, f"{role}_id") is not None):
                raise PydanticCustomError("owner", f"{role}_id goes with the role {role}, and only with it")
        return self


class KeyPublic(Record):
    name: str
    role: Role
    source_id: int | None
    operator_id: int | None
    prefix: str = Field(description="How the key begins, to tell it from others.")
    last_used_at: datetime | None = Field(description="To the minute.")


class KeyCreated(KeyPublic):
    key: str = Field(description="Shown only now: just its SHA-256 is stored.")


@router.post("/", status_code=201, summary="Make a key", responses=responses(404))
@writes
def create_key(write: Write, body: KeyCreate) -> KeyCreated:
    """The answer is the only one that shows it. An owner may have several, so that keys can be replaced one by one."""
    if body.source_id is not None:
        get_row(write.session, Source, body.source_id)
    if body.operator_id is not None:
        get_row(write.session, Operator, body.operator_id)
    key = f"crm_{secrets.token_urlsafe(32)}"
    row = ApiKey(**body.model_dump(), prefix=key[:8], hash=digest_of(key))
    write.session.add(row)
    write.session.flush()
    note(write.session.connection(), "key made", key_id=row.id, role=row.role)
    return KeyCreated(**row.model_dump(exclude={"hash"}), key=key)


@router.get("/", summary="List keys")
def list_keys(query: Annotated[Paging, Depends()], session: SessionDep) -> list[KeyPublic]:
    """By id, without the keys themselves."""
    rows = session.exec(query.of(select(ApiKey).order_by(col(ApiKey.id)))).all()
    return [KeyPublic(**row.model_dump(exclude={"hash"})) for row in rows]


@router.delete("/{key_id}", status_code=204, summary="Revoke a key", responses=responses(404))
@writes
def delete_key(write: Write, key_id: PathId) -> None:
    """From the next request on it is refused, in all processes."""
    write.session.delete(get_row(write.session, ApiKey, key_id))
    note(write.session.connection(), "key revoked", key_id=key_id)


def note_revoked(session: Session, **owner: int) -> None:
    """Notes the keys that go along with their owner: source_id or operator_id."""
    for key_id in session.exec(select(ApiKey.id).filter_by(**owner)).all():
        note(session.connection(), "key revoked", key_id=key_id)
