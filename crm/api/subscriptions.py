"""Subscriptions: who is told what happens, and how that went. Sent is by `outbox.sender`, never in a request."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, col, select
from starlette.exceptions import HTTPException

from crm.db.base import HIGHEST, get_row
from crm.errors import Conflict, Unprocessable
from crm.events import note
from crm.fields import Cursor, EventType, Id, Language, Name, Target, utcnow
from crm.models import Input, Operator, Record, Source
from crm.outbox import people, webhooks
from crm.outbox.deliveries import SUCCESS, add_deliveries
from crm.outbox.tables import Delivery, DeliveryBase, Subscription, SubscriptionBase
from crm.web.answers import responses
from crm.web.deps import Paging, PathId, Service, ServiceDep, SessionDep, Write, writes

router = APIRouter(prefix="/subscriptions", tags=["Subscriptions"])
T = TypeVar("T")
Newest = aliased(Delivery)
BOTH_SIGN = timedelta(hours=24)


class SubscriptionCreate(SubscriptionBase, Input):
    """It is told what happens from now on."""

    model_config = {"json_schema_extra": {"example": {"name": "our CRM", "target": "https://hooks.example/crm"}}}
    target: Target = Field(
        description="An https URL (a signed webhook), or one of apprise: tgram://BOT_TOKEN/CHAT_ID, mailto://... "
    )


class SubscriptionUpdate(Input):
    model_config = {"json_schema_extra": {"example": {"types": ["contact.assigned", "contact.queued"]}}}
    name: Name | None = None
    target: Target = Field(default=None, description="Of the same kind as before.")
    types: list[EventType] | None = Field(default=None, min_length=1)
    source_id: Id | None = None
    operator_id: Id | None = None
    language: Language = Field(default=None)
    with_lead: bool = Field(default=None)
    is_active: bool = Field(default=None, description="On again, it goes on from where it stood.")


class Redelivery(Input):
    model_config = {"json_schema_extra": {"example": {"after": 0}}}
    after: Cursor = Field(description="The id of the last event that is not sent again.")


class DeliveryPublic(DeliveryBase, Record):
    pass


class SubscriptionPublic(SubscriptionBase, Record):
    kind: str = Field(description="`webhook` or `people`.")
    target: str = Field(description="Without what is secret in it.")
    cursor: int = Field(description="The id of the last event that it was told, or that is not for it.")
    attempts: int = Field(description="Failed ones, since the last success.")
    next_attempt_at: datetime | None
    blocked_by: int | None = Field(description="The id of the event that failed, and holds up the rest.")
    off_reason: str | None = Field(description="Why it was switched off by itself: `failed`, or `gone` (a 410).")
    old_secret_until: datetime | None = Field(description="Until then the old secret signs too.")
    last_delivery: DeliveryPublic | None


class SubscriptionSecret(SubscriptionPublic):
    secret: str | None = Field(description="Of a webhook, to check signatures with. Shown only now.")


def answers(session: Session, rows: list[Subscription]) -> list[SubscriptionPublic]:
    of_one = select(Newest.id).where(Newest.subscription_id == Subscription.id).order_by(col(Newest.id).desc())
    newest = of_one.limit(1).correlate(Subscription).scalar_subquery()  # so each is one look into an index
    last = select(Delivery).join(Subscription, col(Delivery.id) == newest)
    last = last.where(col(Subscription.id).in_([row.id for row in rows]))
    deliveries = {delivery.subscription_id: delivery for delivery in session.exec(last)}
    return [SubscriptionPublic.model_validate(public(row, deliveries.get(row.id))) for row in rows]


def public(row: Subscription, last: Delivery | None = None) -> dict[str, Any]:
    is_webhook = row.secret is not None
    return row.model_dump(exclude={"secret", "old_secret", "alerted_at", "target"}) | {
        "kind": "webhook" if is_webhook else "people",
        "target": webhooks.mask(row.target) if is_webhook else people.mask(row.target),
        "last_delivery": last and last.model_dump(exclude={"about_id"}),
    }


def is_webhook(target: str) -> bool:
    return target.lower().startswith(("https:", "http:"))


async def check_target(target: str, allow: str | None) -> None:
    """Before the transaction, for a library may have to be imported. Raises Unprocessable and HTTPException (501)."""
    try:
        if is_webhook(target):
            webhooks.check_url(target, allow)
        elif "://" not in target:
            raise ValueError("is neither an https:// URL nor one of apprise, such as tgram://BOT_TOKEN/CHAT_ID")
        elif not people.IS_INSTALLED:
            raise HTTPException(501, "messages to people need apprise: pip install -e '.[notify]'")
        else:
            await run_in_threadpool(people.check_url, target)
    except ValueError as error:
        raise Unprocessable([(("body", "target"), str(error))]) from None


def check_owners(session: Session, body: SubscriptionCreate | SubscriptionUpdate) -> None:
    """Raises NotFound."""
    if body.source_id is not None:
        get_row(session, Source, body.source_id)
    if body.operator_id is not None:
        get_row(session, Operator, body.operator_id)


async def write(service: Service, work: Callable[[Session], T]) -> T:
    """As `Database.write`; the sender looks at once what it is to do now."""
    result = await service.database.write(work)
    service.sender.look()
    return result


@router.post("/", status_code=201, summary="Subscribe", responses=responses(404, 501))
async def create_subscription(body: SubscriptionCreate, service: ServiceDep) -> SubscriptionSecret:
    """The answer is the only one that shows the secret, with which each webhook is signed (Standard Webhooks)."""
    await check_target(body.target, service.settings.webhook_allow)

    def create(session: Session) -> SubscriptionSecret:
        check_owners(session, body)
        cursor = session.connection().execute(HIGHEST).scalar_one()
        secret = webhooks.new_secret() if is_webhook(body.target) else None
        row = Subscription(**body.model_dump(), secret=secret, cursor=cursor)
        session.add(row)
        session.flush()
        note(session.connection(), "subscription made", subscription_id=row.id)
        return SubscriptionSecret(**public(row), secret=secret)

    return await write(service, create)


@router.get("/", summary="List subscriptions")
def list_subscriptions(query: Annotated[Paging, Depends()], session: SessionDep) -> list[SubscriptionPublic]:
    """By id, each with its state and its last delivery; what is secret in a target is left out."""
    return answers(session, [*session.exec(query.of(select(Subscription).order_by(col(Subscription.id))))])


@router.get("/{subscription_id}", summary="Get a subscription", responses=responses(404))
def get_subscription(subscription_id: PathId, session: SessionDep) -> SubscriptionPublic:
    """With its state and its last delivery."""
    return answers(session, [get_row(session, Subscription, subscription_id)])[0]


@router.patch("/{subscription_id}", summary="Change a subscription", responses=responses(404, 409, 501))
async def update_subscription(
    subscription_id: PathId, body: SubscriptionUpdate, service: ServiceDep
) -> SubscriptionPublic:
    """What is sent is changed. Switched on, or with another target, it is tried at once, from where it stood."""
    if body.target is not None:
        await check_target(body.target, service.settings.webhook_allow)

    def change(session: Session) -> SubscriptionPublic:
        row = get_row(session, Subscription, subscription_id)
        check_owners(session, body)
        if body.target is not None and is_webhook(body.target) != (row.secret is not None):
            raise Conflict(f"subscription {row.id} can't become one of the other kind: make another")
        row.sqlmodel_update(body.model_dump(exclude_unset=True))
        if body.target is not None or body.is_active:
            row.sqlmodel_update({**SUCCESS, "off_reason": None})
        session.flush()
        note(session.connection(), "subscription changed", subscription_id=row.id)
        return answers(session, [row])[0]

    return await write(service, change)


@router.delete("/{subscription_id}", status_code=204, summary="Delete a subscription", responses=responses(404))
@writes
def delete_subscription(write: Write, subscription_id: PathId) -> None:
    """With its log. To go on later from where it stands, switch it off instead."""
    write.session.delete(get_row(write.session, Subscription, subscription_id))
    note(write.session.connection(), "subscription deleted", subscription_id=subscription_id)


@router.post("/{subscription_id}/test", status_code=202, summary="Send a test", responses=responses(404))
async def create_test(subscription_id: PathId, service: ServiceDep) -> DeliveryPublic:
    """It is sent within a second or so, once, also to one that is switched off: the log says what came of it."""

    def add(session: Session) -> DeliveryPublic:
        row = get_row(session, Subscription, subscription_id)
        test = Delivery(subscription_id=row.id, kind="test", outcome="waiting")
        session.add(test)
        session.flush()
        return DeliveryPublic(**test.model_dump(exclude={"about_id"}))

    return await write(service, add)


@router.post("/{subscription_id}/rotate", summary="Change the secret", responses=responses(404, 409))
@writes
def rotate_secret(write: Write, subscription_id: PathId) -> SubscriptionSecret:
    """The answer is the only one that shows the new secret. For 24 hours the old one signs too."""
    row = get_row(write.session, Subscription, subscription_id)
    if row.secret is None:
        raise Conflict(f"subscription {row.id} is of people: it has no secret")
    secret = webhooks.new_secret()
    row.old_secret, row.old_secret_until, row.secret = row.secret, utcnow() + BOTH_SIGN, secret
    write.session.flush()
    note(write.session.connection(), "subscription changed", subscription_id=row.id)
    return SubscriptionSecret(**answers(write.session, [row])[0].model_dump(), secret=secret)


@router.post("/{subscription_id}/skip", summary="Pass over the event that blocks", responses=responses(404, 409))
async def skip_event(subscription_id: PathId, service: ServiceDep) -> SubscriptionPublic:
    """It is not delivered, and the later ones are tried at once."""

    def skip(session: Session) -> SubscriptionPublic:
        row = get_row(session, Subscription, subscription_id)
        if row.blocked_by is None:
            raise Conflict(f"subscription {row.id} is not held up by an event")
        skipped = {"event_id": row.blocked_by, "events": 1, "attempt": row.attempts, "outcome": "skipped"}
        add_deliveries(session.connection(), row.id, [skipped])
        row.sqlmodel_update({**SUCCESS, "cursor": max(row.cursor, row.blocked_by)})
        session.flush()
        return answers(session, [row])[0]

    return await write(service, skip)


@router.post("/{subscription_id}/redeliver", summary="Send events again", responses=responses(404, 409))
async def redeliver_events(subscription_id: PathId, body: Redelivery, service: ServiceDep) -> SubscriptionPublic:
    """All after that one, in order, with the ids that they had; people are not told what is older than an hour."""

    def go_back(session: Session) -> SubscriptionPublic:
        row = get_row(session, Subscription, subscription_id)
        if body.after > row.cursor:
            raise Conflict(f"subscription {row.id} is at event {row.cursor}: events after it are still to be sent")
        row.sqlmodel_update({**SUCCESS, "cursor": body.after})
        session.flush()
        note(session.connection(), "subscription changed", subscription_id=row.id)
        return answers(session, [row])[0]

    return await write(service, go_back)


class DeliveryQuery(Paging):
    before_id: Id | None = Field(default=None, description="Older than this one.")


@router.get("/{subscription_id}/deliveries", summary="The log of deliveries", responses=responses(404))
def list_deliveries(
    subscription_id: PathId, query: Annotated[DeliveryQuery, Query()], session: SessionDep
) -> list[DeliveryPublic]:
    """Each try of the last 30 days, newest first: of an event, of a test, or of a notice to people."""
    get_row(session, Subscription, subscription_id)
    log = select(Delivery).where(col(Delivery.subscription_id) == subscription_id).order_by(col(Delivery.id).desc())
    if query.before_id is not None:
        log = log.where(col(Delivery.id) < query.before_id)
    return [DeliveryPublic(**row.model_dump(exclude={"about_id"})) for row in session.exec(query.of(log))]
