"""The data: tables and, derived from the same classes, the answers of the API (design.md, "Data").

Suffixes: `Base` and `Record` hold the fields that table and API share, `Public` is an answer, and `Receipt` what of it
a bot may know. Bodies (`Create`, `Update`) lie with their routes. They are strict: an unknown field, a number in
quotes, NaN, a NUL or a lone surrogate is refused.
"""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, Index, String, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from crm import fields

SQLModel.metadata.naming_convention = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


class Input(SQLModel):
    """What every request body is: strict, and without unknown fields."""

    model_config = {"extra": "forbid", "strict": True}


class Row(SQLModel):
    """The first columns of every table that has ids of its own: 64-bit and, by AUTOINCREMENT, never reused."""

    id: int = Field(default=None, primary_key=True, sa_type=fields.BIG)
    created_at: datetime = Field(default_factory=fields.utcnow)


class Record(SQLModel):
    """What every answer with an own id begins with."""

    id: int
    created_at: datetime


class OperatorBase(SQLModel):
    name: fields.Name = Field(max_length=100, description="1-100 characters, trimmed.")
    is_active: bool = Field(default=True, description="An inactive operator gets nothing, whatever its weight.")
    max_load: fields.MaxLoad = Field(default=10, description="Most open contacts at once, over all sources.")


class Operator(OperatorBase, Row, table=True):
    __tablename__ = "operator"
    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
        CheckConstraint("max_load BETWEEN 0 AND 100000", name="max_load"),
        Index("ix_operator_shift_until", "shift_until", **fields.where(fields.HAS_SHIFTS)),
        {"sqlite_autoincrement": True},
    )
    on_shift: bool = Field(default=True, sa_column_kwargs=fields.YES)
    shift_until: datetime | None = None  # both follow from its plan: `day.shifts`


class SourceBase(SQLModel):
    name: fields.Name = Field(max_length=100, description="1-100 characters, trimmed, unique.")
    bot_id: fields.BotId | None = Field(
        default=None, max_length=100, description="The bot's own id, unique; contacts may name the source by it."
    )
    description: fields.Description | None = Field(default=None, max_length=1000)
    sticky: fields.Sticky = Field(
        default="off",
        sa_type=String(8),
        sa_column_kwargs={"server_default": "off"},
        description="prefer: first asked is who had the lead's newest contact.",
    )
    accept_within: fields.AcceptWithin | None = Field(
        default=None, description="Seconds until a contact that nobody started is passed on to another; null: never."
    )
    silence_pauses: bool = Field(
        default=False,
        sa_column_kwargs=fields.NO,
        description="Who let one pass is set inactive, unless nobody else could take the next.",
    )


class Source(SourceBase, Row, table=True):
    __tablename__ = "source"
    __table_args__ = (
        UniqueConstraint("name"),
        UniqueConstraint("bot_id"),
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
        CheckConstraint("length(bot_id) BETWEEN 1 AND 100", name="bot_id"),
        fields.one_of("sticky", fields.Sticky),
        CheckConstraint("accept_within BETWEEN 1 AND 2592000", name="accept_within"),
        {"sqlite_autoincrement": True},
    )


class SourceOperator(SQLModel, table=True):
    __tablename__ = "source_operator"
    __table_args__ = (
        CheckConstraint("weight BETWEEN 0 AND 1000000", name="weight"),
        CheckConstraint("length(topic) <= 100", name="topic"),
        Index("ix_source_operator_operator_id", "operator_id"),
        {"sqlite_with_rowid": False},
    )
    source_id: int = Field(primary_key=True, foreign_key="source.id", ondelete="CASCADE", sa_type=fields.BIG)
    topic: str = Field(default="", primary_key=True, max_length=100, sa_column_kwargs=fields.EMPTY)  # "": the plain one
    operator_id: int = Field(primary_key=True, foreign_key="operator.id", ondelete="CASCADE", sa_type=fields.BIG)
    weight: float


class Lead(Row, table=True):
    __tablename__ = "lead"
    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name"),
        Index("ix_lead_created_at", "created_at"),
        Index("ix_lead_merged_into", "merged_into", **fields.where(fields.IS_MERGED)),
        {"sqlite_autoincrement": True},
    )
    name: str | None = Field(default=None, max_length=255)
    merged_into: int | None = Field(default=None, foreign_key="lead.id", sa_type=fields.BIG)  # never a merged one


class LeadIdentifier(SQLModel, table=True):
    __tablename__ = "lead_identifier"
    __table_args__ = (
        fields.one_of("kind", fields.IdentifierKind),
        CheckConstraint("length(value) BETWEEN 1 AND 255", name="value"),
        Index("ix_lead_identifier_lead_id", "lead_id", "kind", "value"),
        {"sqlite_with_rowid": False},
    )
    kind: str = Field(primary_key=True, max_length=16)
    value: str = Field(primary_key=True, max_length=255)
    lead_id: int = Field(foreign_key="lead.id", ondelete="CASCADE", sa_type=fields.BIG)


class LeadReceipt(SQLModel):
    """A lead as a bot may know it: only what its request sent."""

    id: int
    name: str | None
    external_ids: list[str]
    phones: list[str] = Field(description="In E.164.")
    emails: list[str] = Field(description="In lower case.")


class LeadPublic(LeadReceipt, Record):
    pass


class ContactBase(SQLModel):
    message: fields.Message | None = Field(default=None, max_length=10_000)
    priority: fields.Priority = Field(default=0, description="Waiting contacts with a higher one are handed out first.")
    event_id: fields.Key | None = Field(
        default=None, max_length=255, description="The bot's id of this event: repeats return the first contact."
    )


class ContactRecord(ContactBase):
    lead_id: int = Field(foreign_key="lead.id", sa_type=fields.BIG)
    source_id: int = Field(foreign_key="source.id", sa_type=fields.BIG)
    operator_id: int | None = Field(foreign_key="operator.id", sa_type=fields.BIG)
    status: fields.ContactStatus = Field(sa_type=String(16))
    topic: str = Field(default="", max_length=100, sa_column_kwargs=fields.EMPTY, description="What it is about.")
    due_at: datetime | None = Field(default=None, description="When it is passed on, unless it is started before.")
    identity_note: str | None = Field(description="What of the identifiers could not be used, and why.")
    assigned_at: datetime | None = Field(description="The first assignment; null while nobody has had it.")
    closed_at: datetime | None


IN_TURN, COUNTED = (text("priority DESC"), "id"), ("created_at", "source_id", "operator_id", "is_sticky")


class Contact(ContactRecord, Row, table=True):
    __tablename__ = "contact"
    __table_args__ = (
        fields.one_of("status", fields.ContactStatus),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        CheckConstraint("length(event_id) BETWEEN 1 AND 255", name="event_id"),
        CheckConstraint("length(message) <= 10000", name="message"),
        CheckConstraint("length(topic) <= 100", name="topic"),
        CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name="closed_at"),
        CheckConstraint(
            "CASE status WHEN 'pending' THEN operator_id IS NULL "
            "WHEN 'closed' THEN TRUE ELSE operator_id IS NOT NULL END",
            name="operator_id",
        ),
        Index("uq_contact_event_id", "source_id", "event_id", unique=True, **fields.where(fields.HAS_EVENT)),
        Index("ix_contact_load", "operator_id", "id", "status", **fields.where(fields.IS_OPEN)),
        # The queue in the order of handing out: of one source and topic; for its lists of one source, and of all.
        Index("ix_contact_queue_topic", "source_id", "topic", *IN_TURN, **fields.where(fields.IS_PENDING)),
        Index("ix_contact_queue_source", "source_id", *IN_TURN, **fields.where(fields.IS_PENDING)),
        Index("ix_contact_queue", *IN_TURN, **fields.where(fields.IS_PENDING)),
        Index("ix_contact_waits_since", "waits_since", **fields.where(fields.IS_NOT_OVERDUE_YET)),
        Index("ix_contact_due_at", "due_at", **fields.where(fields.HAS_DUE_AT)),
        # The lists: id gives the order, status is there to filter on without reading the row.
        Index("ix_contact_lead_id", "lead_id", "id"),
        Index("ix_contact_source_id", "source_id", "id", "status"),
        Index("ix_contact_operator_id", "operator_id", "id", "status"),
        Index("ix_contact_status", "status", "id"),
        # Statistics of a period read only these; the first serves long ones, and the list of a source and an operator.
        Index("ix_contact_counts", "source_id", "operator_id", "id", "created_at"),
        Index("ix_contact_created_at", "created_at", "source_id", "operator_id"),
        Index("ix_contact_topic", "topic", "id", **fields.where(fields.HAS_TOPIC)),
        Index("ix_contact_topic_counts", *COUNTED, "topic", **fields.where(fields.HAS_TOPIC)),
        Index("ix_contact_sticky", *COUNTED, **fields.where(fields.IS_STICKY)),
        Index("ix_contact_waited", "created_at", "assigned_at", **fields.where(fields.HAS_WAITED)),
        Index("ix_contact_note", "id", **fields.where(fields.HAS_NOTE)),
        Index("ix_contact_closed_at", "closed_at", "source_id", "operator_id", **fields.where(fields.IS_CLOSED)),
        {"sqlite_autoincrement": True},
    )
    waits_since: datetime | None = None  # of a pending one, until it is said that it is overdue
    is_sticky: bool = Field(default=False, sa_column_kwargs=fields.NO)  # its operator has it for the lead's sake


class SourceRef(SQLModel):
    id: int
    name: str
    bot_id: str | None


class OperatorRef(SQLModel):
    id: int
    name: str


class ContactReceipt(ContactRecord, Record):
    """A contact as its bot may know it."""

    lead: LeadReceipt
    source: SourceRef
    operator: OperatorRef | None


class ContactPublic(ContactReceipt):
    lead: LeadPublic


class Candidate(SQLModel):
    """What one draw saw of one operator of the source; load and max_load where the load was counted."""

    operator_id: int
    weight: float
    outcome: fields.Outcome
    load: int | None = None
    max_load: int | None = None


class AssignmentBase(SQLModel):
    contact_id: int = Field(foreign_key="contact.id", sa_type=fields.BIG)
    operator_id: int | None = Field(foreign_key="operator.id", sa_type=fields.BIG, description="null: no one.")
    reason: fields.Reason = Field(sa_type=String(16))
    candidates: list[Candidate] = Field(sa_type=JSON)


class Assignment(AssignmentBase, Row, table=True):
    """One line of a contact's history; never changed, never deleted. Its id is the cursor of `outbox.feed`."""

    __tablename__ = "assignment"
    __table_args__ = (
        fields.one_of("reason", fields.Reason),
        Index("ix_assignment_contact_id", "contact_id", "id"),
        Index("ix_assignment_operator_id", "operator_id"),  # else deleting an operator would read all of it
        Index("ix_assignment_moves", "created_at", "operator_id", "contact_id", **fields.where(fields.IS_MOVE)),
        {"sqlite_autoincrement": True},
    )


class AssignmentPublic(AssignmentBase, Record):
    pass


class ContactDetail(ContactPublic):
    history: list[AssignmentPublic] = Field(description="What happened to it, oldest first.")
