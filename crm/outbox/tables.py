"""Who is told (subscriptions), what was sent to them, and which process sends at the moment.

Only the outbox needs them, so they are not in `crm.models`; bodies and answers of the API are made of the same classes.
"""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, Index, String, text
from sqlmodel import Field, SQLModel

from crm import fields
from crm.models import Row

IS_WAITING = text("outcome = 'waiting'")  # predicate of a partial index


class SubscriptionBase(SQLModel):
    name: fields.Name | None = Field(default=None, max_length=100, description="For your list: 1-100 characters.")
    types: list[fields.EventType] | None = Field(
        default=None,
        min_length=1,
        sa_type=JSON(none_as_null=True),
        description="Only these events; null: all (people: those that somebody should act on).",
    )
    source_id: fields.Id | None = Field(
        default=None,
        foreign_key="source.id",
        ondelete="CASCADE",
        sa_type=fields.BIG,
        description="Only of this source.",
    )
    operator_id: fields.Id | None = Field(
        default=None,
        foreign_key="operator.id",
        ondelete="CASCADE",
        sa_type=fields.BIG,
        description="Only of this operator's own contacts.",
    )
    language: fields.Language = Field(default="en", sa_type=String(2), description="Of the texts to people.")
    with_lead: bool = Field(
        default=False, description="Texts to people have the lead's name and phone, and the message."
    )
    is_active: bool = Field(default=True, description="Switched off, it keeps its place: nothing is lost meanwhile.")


class Subscription(SubscriptionBase, Row, table=True):
    """One receiver. It stands at `cursor`, the last event that it was told (or that is not for it)."""

    __tablename__ = "subscription"
    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
        fields.one_of("language", fields.Language),
        CheckConstraint("attempts >= 0", name="attempts"),
        {"sqlite_autoincrement": True},
    )
    target: str = Field(max_length=2000)  # with its credentials, so never in an answer or in the log
    secret: str | None = Field(default=None, max_length=100)  # of a webhook; stored as it is, for it signs
    old_secret: str | None = Field(default=None, max_length=100)
    old_secret_until: datetime | None = None
    cursor: int = Field(sa_type=fields.BIG)
    attempts: int = 0  # failed ones, since the last success
    next_attempt_at: datetime | None = None
    blocked_by: int | None = Field(default=None, sa_type=fields.BIG)  # the event that failed
    off_reason: str | None = Field(default=None, max_length=16)  # why the sender switched it off
    alerted_at: datetime | None = None  # when people were last told that contacts wait


class DeliveryBase(SQLModel):
    subscription_id: int = Field(foreign_key="subscription.id", ondelete="CASCADE", sa_type=fields.BIG)
    kind: fields.DeliveryKind = Field(
        sa_type=String(16), description="`notice`: that another subscription was switched off."
    )
    event_id: int | None = Field(
        default=None, sa_type=fields.BIG, description="The event, or the last of those joined into one message."
    )
    events: int = Field(default=0, description="How many events it told.")
    outcome: fields.DeliveryOutcome = Field(sa_type=String(16))
    attempt: int = Field(default=1, description="Which try it was.")
    status: int | None = Field(default=None, description="Of the receiver's answer.")
    error: str | None = Field(default=None, max_length=200)
    seconds: float | None = Field(default=None, description="How long it took.")


class Delivery(DeliveryBase, Row, table=True):
    """One try; kept for 30 days. What is `waiting` is a test or a notice that the sender has yet to send."""

    __tablename__ = "delivery"
    __table_args__ = (
        fields.one_of("kind", fields.DeliveryKind),
        fields.one_of("outcome", fields.DeliveryOutcome),
        Index("ix_delivery_subscription_id", "subscription_id", "id"),
        Index("ix_delivery_created_at", "created_at"),
        Index("ix_delivery_waiting", "id", **fields.where(IS_WAITING)),
        {"sqlite_autoincrement": True},
    )
    about_id: int | None = Field(default=None, sa_type=fields.BIG)  # the subscription that a notice is about


class Lease(SQLModel, table=True):
    """One row at most: which process sends, and until when (seconds since 1970 by the database's clock)."""

    __tablename__ = "lease"
    __table_args__ = (CheckConstraint("id = 1", name="id"),)
    id: int = Field(default=1, primary_key=True, sa_type=fields.BIG)
    holder: str = Field(max_length=32)
    until: float
