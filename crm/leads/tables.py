"""What is known of leads besides themselves: which two may be one person, and what was done with the data of one.

Only who merges and forgets needs them, so they are not in `crm.models`.
"""

from typing import Any, Literal

from sqlalchemy import JSON, CheckConstraint, Index, String, UniqueConstraint, or_, union
from sqlmodel import Field, SQLModel, col, select

from crm import fields
from crm.models import Lead, Row

Act = Literal["merged", "unmerged", "told_apart", "forgotten"]


class Evidence(SQLModel):
    kind: fields.IdentifierKind = Field(sa_type=String(16))
    value: str = Field(max_length=255)
    contact_id: int = Field(foreign_key="contact.id", sa_type=fields.BIG, description="The first that came with it.")


class Duplicate(Evidence, Row, table=True):
    """What speaks for two leads being one person: a contact of the one came with this identifier of the other.

    As long as either is merged into a third, it speaks for that one. It stays when the pair is closed, as the acts say.
    """

    __tablename__ = "duplicate"
    __table_args__ = (
        fields.one_of("kind", fields.IdentifierKind),
        CheckConstraint("length(value) BETWEEN 1 AND 255", name="value"),
        UniqueConstraint("kind", "value", "lead_id", "other_id"),
        Index("ix_duplicate_lead_id", "lead_id"),
        Index("ix_duplicate_other_id", "other_id"),
        {"sqlite_autoincrement": True},
    )
    lead_id: int = Field(foreign_key="lead.id", sa_type=fields.BIG)
    other_id: int = Field(foreign_key="lead.id", sa_type=fields.BIG)


class LeadActBase(SQLModel):
    act: Act = Field(sa_type=String(16))
    lead_id: int = Field(foreign_key="lead.id", sa_type=fields.BIG)
    other_id: int | None = Field(
        foreign_key="lead.id",
        sa_type=fields.BIG,
        description="Into which it was merged, from which it was taken out again, or of which it was told apart.",
    )
    who: str = Field(max_length=150, description="The key that did it, as it was called then.")
    contacts: int = Field(description="How many it had, or got back.")


class LeadAct(LeadActBase, Row, table=True):
    """What was done with the data of a lead; it stays when the lead is forgotten, without what the lead said.

    A lead that is merged has, in the last act of this kind, what moved: its `identifiers`, and the ids of its contacts
    and of leads that were merged into it (`moved`), until that is undone or the lead is forgotten.
    """

    __tablename__ = "lead_act"
    __table_args__ = (
        fields.one_of("act", Act),
        CheckConstraint("(act = 'forgotten') = (other_id IS NULL)", name="other_id"),
        Index("ix_lead_act_lead_id", "lead_id"),
        Index("ix_lead_act_other_id", "other_id"),
        {"sqlite_autoincrement": True},
    )
    identifiers: list[list[str]] | None = Field(default=None, sa_type=JSON(none_as_null=True))  # each: kind and value
    moved: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))  # contacts, leads, name


def family(lead_id: Any) -> Any:
    """The ids of a lead and of those that are merged into it."""
    return select(Lead.id).where(or_(col(Lead.id) == lead_id, col(Lead.merged_into) == lead_id))


def between(table: type[Duplicate] | type[LeadAct], one: Any, other: Any, *conditions: Any) -> Any:
    """The ids of the rows about two leads, in either order, and about those that are merged into them."""
    lead_id, other_id = col(table.lead_id), col(table.other_id)
    ways = ((one, other), (other, one))
    return union(
        *(select(table.id).where(lead_id.in_(family(a)), other_id.in_(family(b)), *conditions) for a, b in ways)
    )


def about(table: type[Duplicate] | type[LeadAct], lead_id: Any) -> Any:
    """The ids of the rows about a lead and those that are merged into it."""
    columns = (col(table.lead_id), col(table.other_id))
    return union(*(select(table.id).where(column.in_(family(lead_id))) for column in columns))
