"""How many contacts of a period there are: of all time from the counts that are kept, else read in an index."""

from collections import Counter
from functools import cached_property
from typing import Any

import sqlalchemy
from sqlalchemy import func
from sqlmodel import Session, col, select

from crm.db.counts import Count, read_counts
from crm.db.sql import seconds_between
from crm.fields import HAS_TOPIC, HAS_WAITED, IS_STICKY
from crm.models import Contact, Source
from crm.web.deps import Period

CREATED_AT = col(Contact.created_at)
OF_ANY_SOURCE = col(Contact.source_id).in_(select(Source.id))  # lets a condition on the operator use its index
Counts = Counter[tuple[int, int | None]]  # contacts by source and operator (None: nobody's)


class Counted:
    """Each of these reads what it tells of. of: only this source_id, or operator_id."""

    def __init__(self, session: Session, period: Period, **of: int) -> None:
        self._session, self._period, self._of = session, period, of
        self._kept = read_counts(session.connection(), of) if period.is_all_time else None

    @cached_property
    def contacts(self) -> Counts:
        if self._kept is not None:
            return _sum(self._kept)
        if self._period.is_short:
            return self._by_operator(*self._by_time())
        of = [getattr(Contact, name) == self._of[name] for name in self._of]
        return self._by_operator(*self._period.on(CREATED_AT), *of, *([OF_ANY_SOURCE] if of else []))

    def sticky(self) -> Counts:
        if self._kept is not None:
            return _sum([count for count in self._kept if count.is_sticky])
        return self._by_operator(IS_STICKY, *self._by_time())

    def of_topics(self) -> Counter[tuple[int, str, int | None, bool]]:
        """By source, topic, operator and whether they are sticky; nothing is read of contacts without a topic."""
        found: Counter[tuple[int, str, int | None, bool]] = Counter()
        if self._kept is not None:
            for count in read_counts(self._session.connection(), self._of, with_topic=True):
                found[count.source_id, count.topic, count.operator_id, count.is_sticky] += count.contacts
            return found
        key = (col(Contact.source_id), col(Contact.topic), col(Contact.operator_id), col(Contact.is_sticky))
        came: Any = sqlalchemy.select(*key, func.count()).where(HAS_TOPIC, *self._by_time()).group_by(*key)
        for *group, contacts in self._session.connection().execute(came):
            found[tuple(group)] = contacts
        return found

    def mean_assign_seconds(self) -> float | None:
        if self._kept is not None:
            assigned = sum(count.assigned for count in self._kept)
            return sum(count.waited for count in self._kept) / 1_000_000 / assigned if assigned else None
        # Most contacts are assigned as they come; only the others, in an index of their own, add to the sum.
        assigned_at = col(Contact.assigned_at)
        waited = select(func.sum(seconds_between(assigned_at, CREATED_AT))).where(HAS_WAITED, *self._by_time())
        is_taken_away = (col(Contact.operator_id).is_(None), assigned_at.is_not(None), OF_ANY_SOURCE)
        assigned = sum(n for (_, operator_id), n in self.contacts.items() if operator_id is not None)
        assigned += self._by_operator(*is_taken_away, *self._period.on(CREATED_AT)).total()
        return (self._session.exec(waited).one() or 0.0) / assigned if assigned else None

    def _by_time(self) -> list[Any]:
        """Conditions for an index by time, and for no other."""
        columns = {name: getattr(Contact, name) for name in self._of}
        of = [func.coalesce(column, column) == self._of[name] for name, column in columns.items()]
        return self._period.by_time(CREATED_AT) + of

    def _by_operator(self, *conditions: Any) -> Counts:
        """One pass over a covering index."""
        groups = (col(Contact.source_id), col(Contact.operator_id))
        rows = self._session.exec(select(*groups, func.count()).where(*conditions).group_by(*groups))
        return Counter({(source_id, operator_id): contacts for source_id, operator_id, contacts in rows})


def _sum(kept: list[Count]) -> Counts:
    sums: Counts = Counter()
    for count in kept:
        sums[count.source_id, count.operator_id] += count.contacts
    return sums
