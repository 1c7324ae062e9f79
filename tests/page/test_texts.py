"""The texts of the page: each in both languages, and none that nothing says."""

import re
from pathlib import Path
from typing import get_args

from crm.fields import ContactStatus, DeliveryOutcome, EventType, Happened, Moved
from crm.leads.tables import Act

PAGE = Path(__file__).parents[2] / "crm/page"
TEXTS = (PAGE / "text.js").read_text()
KEY = re.compile(r'(?:"([^"]+)"|\b(\w+)): "([^"]+)"')


def keys(name: str) -> dict[str, str]:
    """The texts of a table in text.js, by their keys."""
    table = TEXTS.partition(f"export const {name} = {{")[2].partition("\n};")[0]
    return {quoted or plain: text for quoted, plain, text in KEY.findall(table)}


def said() -> set[str]:
    """What the page says in its own words."""
    modules = [path for path in PAGE.rglob("*.js") if "vendor" not in path.parts]
    assert len(modules) > 8
    return {text for path in modules for text in re.findall(r'\bt\(\s*"([^"]+)"', path.read_text())}


def told(view: str, name: str) -> list[str]:
    """The keys of a table of functions in a view."""
    table = (PAGE / f"views/{view}.js").read_text().partition(f"const {name} = {{")[2].partition("};")[0]
    return re.findall(r"\b(\w+): \(", table)


def test_all_that_is_said_in_english_is_said_in_russian_too_and_nothing_else() -> None:
    russian, english = set(keys("RU")), said() | set(keys("WORDS"))
    assert english - russian == set(), "not in Russian"
    assert russian - english == set(), "not said any more"


def test_the_words_of_the_api_are_all_known() -> None:
    outcomes_and_reasons = {"inactive", "off_shift", "zero_weight"}
    words = {word for literal in (ContactStatus, Moved, EventType, DeliveryOutcome) for word in get_args(literal)}
    assert set(keys("WORDS")) == words | outcomes_and_reasons
    assert told("contact", "HAPPENED") == [*get_args(Happened)]
    assert told("lead", "DONE") == [*get_args(Act)]


def test_the_page_hears_all_types_of_events() -> None:
    types = (PAGE / "stream.js").read_text().partition("TYPES = [")[2].partition("]")[0]
    assert re.findall(r'"(.+?)"', types) == [*get_args(EventType)]


def test_a_text_has_the_same_values_in_both_languages() -> None:
    values = re.compile(r"\{\d\}")
    for english, russian in keys("RU").items():
        assert sorted(values.findall(english)) == sorted(values.findall(russian)), english
