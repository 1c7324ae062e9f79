"""Statistics of topics: what they have at each source, so that a mistyped one shows."""

from collections import Counter, defaultdict

from sqlalchemy import func
from sqlmodel import Field, Session, SQLModel, col, select

from crm.api.counted import Counted
from crm.fields import HAS_TOPIC, IS_PENDING
from crm.models import Contact

MOST = 50  # topics of a source with most contacts, and with most that wait; a bot may send any number


class TopicStats(SQLModel):
    topic: str
    contacts: int
    pending: int
    has_weights: bool = Field(description="Whether the source has weights for it; else the plain ones serve it.")


class Topics:
    """What the sources have of topics; nothing is read of contacts without one."""

    def __init__(
        self, session: Session, counted: Counted, weights: dict[int, dict[str, dict[int, float]]], **of: int
    ) -> None:
        """of: the source_id, if it is one."""
        key = (col(Contact.source_id), col(Contact.topic))
        mine = [getattr(Contact, name) == of[name] for name in of]
        waiting = select(*key, func.count()).where(IS_PENDING, HAS_TOPIC, *mine).group_by(*key)
        self._weights = weights
        self._pending: dict[int, Counter[str]] = defaultdict(Counter)
        for source_id, topic, contacts in session.exec(waiting):
            self._pending[source_id][topic] = contacts
        self._contacts: dict[int, Counter[str]] = defaultdict(Counter)
        self.drawn: Counter[tuple[int, int | None]] = Counter()  # of topics with weights, by source and operator
        for (source_id, topic, operator_id, is_sticky), contacts in counted.of_topics().items():
            self._contacts[source_id][topic] += contacts
            if self._has_weights(source_id, topic) and not is_sticky:
                self.drawn[source_id, operator_id] += contacts

    def _has_weights(self, source_id: int, topic: str) -> bool:
        return any(self._weights[source_id][topic].values())

    def of(self, source_id: int) -> list[TopicStats]:
        contacts, pending = self._contacts[source_id], self._pending[source_id]
        most = [topic for counts in (contacts, pending) for topic, _ in counts.most_common(MOST)]
        return [
            TopicStats(
                topic=topic,
                contacts=contacts[topic],
                pending=pending[topic],
                has_weights=self._has_weights(source_id, topic),
            )
            for topic in sorted({*most, *filter(None, self._weights[source_id])})
        ]
