"""Which database a URL names, and that one which can't be used is refused in one clear line."""

import pytest

from crm.db import open_database
from crm.errors import StartupError


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "memory"),
        ("sqlite:////no/such/folder/crm.db", "unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:1/crm", "refused"),
        ("postgresql://me@127.0.0.1:1/crm?password=secret", "refused"),
        ("mysql://me:secret@localhost/crm", "only sqlite"),
        ("nonsense", "not a database URL"),
        ("sqlite+aiosqlite:///x.db", "only sqlite"),
        ("sqlite:///x.db?timeout=soon", "soon"),
        ("sqlite://me:secret@host/x.db", "x.db"),
        ("postgresql://me:secret@127.0.0.1:port/crm", "not a database URL"),
        ("postgresql://me:secret@127.0.0.1:1/crm?nonsense=1", "nonsense"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(StartupError, match=reason) as raised:
        open_database(url, 1).start(lambda _: None)
    assert "secret" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
