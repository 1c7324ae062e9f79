"""Search: the leads of whose name or identifiers something is a part, in any case; of fewer than three letters, those
with an identifier or a word of the name that begins so.

An index of trigrams says who may be meant, and the text itself who is: what is found is exactly what a plain scan
would find. Indexed is a text in which whatever may be meant alike is alike (`ALIKE_IN_INDEX`), and each word has two
marks before it, so that its first letter is a part of three too. PostgreSQL has such an index on each column (GIN).
SQLite has one for all (`search_index.py`), and those whose words have changed lately are read besides. Where it comes
without FTS5, all is read.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, islice, product
from typing import Any

from sqlalchemy import Text, and_, column, exists, func, literal, literal_column, or_, table, union
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Session, col, select

from crm.db.search_index import ALIKE_IN_INDEX, MARKED, MARKS, has_index
from crm.fields import BIG, within_64_bits
from crm.models import Lead, LeadIdentifier

CAPITALS = {"sqlite": re.compile("[A-ZÀ-ÖØ-ÞΑ-ΡΣ-ΩЀ-Я]"), "postgresql": re.compile("[A-Z]")}  # and small letters
MOST_TRIGRAMS = 32  # of a part that are looked up; more hardly exclude anybody
NEXT = 1_000  # leads of which PostgreSQL looks at each first; if one in a hundred has the word, at ten times as many

INDEX = table("lead_search", column("rowid", BIG))
NOTED = table("lead_search_noted", column("lead_id", BIG))


def find(
    session: Session, parts: Sequence[str], is_other: Callable[[Any], list[Any]], after: int, skip: int, limit: int
) -> Sequence[int]:
    """The ids, in order, of leads above `after` that have the first part or, in a phone, one of the others.

    is_other: of the id of a lead, as a column, what else must hold.
    """
    if "\x00" in parts[0]:  # which no text has, and SQLite would take for its end
        return []
    connection, most = session.connection(), within_64_bits(skip + limit)
    dialect, name, value = connection.dialect.name, col(Lead.name), col(LeadIdentifier.value)
    is_phone = col(LeadIdentifier.kind) == "phone"
    in_name = _has(dialect, name, parts[0], "(^|[ -])")
    in_value = or_(_has(dialect, value, parts[0], "^"), *(is_phone & _has(dialect, value, part) for part in parts[1:]))
    trigrams = [_trigrams(dialect, part) for part in parts]

    def page(*halves: Any) -> Sequence[int]:
        """Each half stops where the page ends, when many match."""
        limited = (half.order_by(literal_column("id")).limit(most).subquery() for half in halves)
        ids = union(*(select(half.c.id) for half in limited)).subquery().c.id
        return session.exec(select(ids).order_by(ids).offset(skip).limit(limit)).all()

    def scan(last: int | None = None) -> Sequence[int]:
        def half(lead_id: Any, *conditions: Any) -> Any:
            until = [lead_id <= last] if last else []
            return select(lead_id.label("id")).where(lead_id > after, *until, *conditions, *is_other(lead_id))

        is_living = col(Lead.merged_into).is_(None)
        return page(half(col(Lead.id), is_living, in_name), half(col(LeadIdentifier.lead_id), in_value).distinct())

    if not all(trigrams):
        return scan()
    if dialect == "sqlite":
        if not has_index(connection):
            return scan()
        has_value = exists().where(col(LeadIdentifier.lead_id) == col(Lead.id), in_value)

        def those_of(lead_id: Any, *conditions: Any) -> Any:
            lead = exists().where(col(Lead.id) == lead_id, col(Lead.merged_into).is_(None), or_(in_name, has_value))
            return select(lead_id.label("id")).where(lead_id > after, *conditions, *is_other(lead_id), lead)

        meant = literal_column("lead_search").op("MATCH")(" OR ".join(map(_match, trigrams)))
        indexed, noted = INDEX.c.rowid, NOTED.c.lead_id
        return page(those_of(indexed, meant, indexed.not_in(select(noted))), those_of(noted))
    # Of a word that many have the index would give all, to be sorted. Those are found soon.
    for leads in (NEXT, 10 * NEXT):
        following = select(Lead.id).where(col(Lead.id) > after).order_by(col(Lead.id)).offset(leads).limit(1)
        last = session.exec(following).first()
        found = scan(last)
        if last is None or len(found) == limit:
            return found
        if 10 * len(found) < limit:
            break

    def looked_up(lead_id: Any, text: Any, is_meant: Any, *conditions: Any) -> Any:
        """By the index, whatever the planner thinks: for a word that it takes for usual it would read all by id."""
        meant = or_(*(and_(*(_overlap(text, alike) for alike in each)) for each in trigrams))
        rows = select(lead_id.label("id")).where(meant, is_meant, lead_id > after, *conditions, *is_other(lead_id))
        return select(rows.distinct().cte().prefix_with("MATERIALIZED").c.id)

    return page(
        looked_up(col(Lead.id), name, in_name, col(Lead.merged_into).is_(None)),
        looked_up(col(LeadIdentifier.lead_id), value, in_value),
    )


# --- a part in a text ------------------------------------------------------------------------------------------------


def _has(dialect: str, text: Any, part: str, begin: str = "") -> Any:
    """A condition: the column contains this part, in any case; at its begin (a regex), if that is short.

    Letter by letter, for SQLite's LIKE and lower() know only ASCII, and PostgreSQL's only the letters of its locale.
    """
    begin = begin if len(part) < 3 else ""
    if dialect == "postgresql":
        return text.op("~")(begin + pattern(part))
    # GLOB knows no alternatives: at most 16, the rest is as written.
    spellings = [chain(*spelling) for spelling in islice(product(*_spellings(part)), 16)]
    text, begin = (literal(" ").concat(text), "*[ -]") if "-" in begin else (text, "" if begin else "*")
    return or_(*(text.op("GLOB")(f"{begin}{''.join(map(_glob_class, letters))}*") for letters in spellings))


def pattern(part: str) -> str:
    """The part as a regex."""
    alternatives = ("|".join("".join(map(_regex_class, letters)) for letters in each) for each in _spellings(part))
    return "".join(f"(?:{regex})" for regex in alternatives)


ALIKE = ("σςΣ", "iIİı")
IN_TWO_LETTERS = re.compile("[sS]{2}|[ßẞ]|[iIı]\u0307|İ|.", re.DOTALL)


def _spellings(part: str) -> list[list[list[set[str]]]]:
    """Of each letter its spellings, first as it is written, each a list of letters, each with its cases: two spellings
    for what is one letter in one case and two in the other.

    That is the sharp s, whose capital is SS, and the dotted I, which has its dot apart when it is small.
    """
    found = []
    for letters in IN_TWO_LETTERS.findall(part):
        if letters.upper() in ("SS", "ẞ"):
            both = [[{"ß", "ẞ"}], [_cases("s"), _cases("s")]]
        elif letters == "İ" or letters[1:] == "\u0307":
            both = [[_cases("i")], [_cases("i"), {"\u0307"}]]
        else:
            both = [[_cases(letters)]]
        found.append(sorted(both, key=lambda spelling: len(spelling) != len(letters)))
    return found


def _cases(letter: str) -> set[str]:
    alike = next((letters for letters in ALIKE if letter in letters), "")
    return {letter, *alike, *(other for other in (letter.lower(), letter.upper()) if len(other) == 1)}


def _regex_class(variants: set[str]) -> str:
    codes = (f"\\U{ord(letter):08x}" for letter in sorted(variants))
    return f"[{''.join(codes)}]"


def _glob_class(variants: set[str]) -> str:
    """Matches one character: GLOB reads ] as itself when it comes first, and ^ when it does not."""
    single = sorted(variants, key="]^".find, reverse=True)
    return "^" if single == ["^"] else f"[{''.join(single)}]"


# --- a part in the index ---------------------------------------------------------------------------------------------


def _trigrams(dialect: str, part: str) -> list[list[str]]:
    """Whoever has the part has of each list one in the index. None: of this part the index knows nothing."""
    alike, marked = str.maketrans(ALIKE_IN_INDEX), str.maketrans(MARKED)
    text = (MARKS if len(part) < 3 else "") + part.translate(alike).translate(marked)
    letters = [
        tuple({CAPITALS[dialect].sub(lambda found: found[0].lower(), case.translate(alike)): None for case in cases})
        for cases in map(sorted, map(_cases, text))
    ]
    windows = dict.fromkeys(zip(letters, letters[1:], letters[2:], strict=False))
    return [list(map("".join, product(*window))) for window in islice(windows, MOST_TRIGRAMS)]


def _match(trigrams: list[list[str]]) -> str:
    """In the words of FTS5."""
    doubled = ([trigram.replace('"', '""') for trigram in alike] for alike in trigrams)
    return "(" + " AND ".join('("' + '" OR "'.join(alike) + '")' for alike in doubled) + ")"


def _overlap(text: Any, trigrams: list[str]) -> Any:
    return func.lead_search_trigrams(text).op("&&")(literal(trigrams, ARRAY(Text())))
