"""Is the service up? For load balancers: without a key, and answered by the database."""

from fastapi import APIRouter
from sqlalchemy import text
from sqlmodel import SQLModel

from crm.web.answers import responses
from crm.web.deps import SessionDep

router = APIRouter(tags=["Service"])


class Health(SQLModel):
    status: str


@router.get("/health", summary="Is the service up?", responses=responses(503))
def get_health(session: SessionDep) -> Health:
    """200 when the database answers."""
    session.connection().execute(text("SELECT count(*) FROM alembic_version"))
    return Health(status="ok")
