"""`python -m crm import leads`: by the same rules as a contact's lead, from whatever file."""

import csv
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from crm.tools import import_leads, leads_csv
from tests.conftest import Api, empty_file
from tests.postgres import sql
from tests.service import at_a_terminal, run


class Importer:
    """Imports into the database of the test, and returns what was printed."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def __call__(self, content: str | bytes, *options: str, expect: int = 0) -> str:
        file = self.folder / "leads.csv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return run("import", "leads", str(file), *options, expect=expect, DATABASE_URL=self.url)

    def rejected(self) -> list[tuple[str, ...]]:
        file = self.folder / "leads.rejected.csv"
        if not file.exists():
            return []
        with file.open(encoding="utf-8-sig", newline="") as text:
            head, *rows = csv.reader(text, strict=True)
        assert head == ["line", "column", "value", "why"]
        return [tuple(row) for row in rows]


@pytest.fixture
def bring(database: str, tmp_path: Path) -> Importer:
    return Importer(database, tmp_path)


def leads(api: Api) -> list[tuple[str | None, list[str], list[str], list[str]]]:
    return [
        (lead["name"], lead["external_ids"], lead["phones"], lead["emails"]) for lead in api.get("/leads/?limit=1000")
    ]


def summary(printed: str) -> str:
    return next(line for line in printed.splitlines() if " read, " in line)


# --- which lead ------------------------------------------------------------------------------------------------------


def test_leads_are_added_completed_or_left_as_a_contact_would_and_twice_adds_nothing(bring: Importer, api: Api) -> None:
    api.source()
    api.contact(1, "tg:1", lead_phone="+7 999 123-45-01")
    api.contact(1, "tg:2", lead_name="Мария")
    content = (
        "Name,Phone,E-mail,External ID\n"
        "Ivan,8 (999) 123-45-01,Ivan@Example.com,\n"  # known by the phone: gets a name and an e-mail
        "Maria,,,tg:2\n"  # known, and has a name
        "Пётр,9991234503,petr@example.com,tg:3\n"
        "Пётр Второй,,PETR@example.com,tg:4\n"  # the third line's, known by the e-mail
        ",,,\n"
    )
    expected = [
        ("Ivan", ["tg:1"], ["+79991234501"], ["ivan@example.com"]),
        ("Мария", ["tg:2"], [], []),
        ("Пётр", ["tg:3", "tg:4"], ["+79991234503"], ["petr@example.com"]),
    ]
    assert summary(bring(content)) == "4 read, 1 added, 2 completed, 1 unchanged, 0 rejected"
    assert leads(api) == expected
    assert summary(bring(content)) == "4 read, 0 added, 0 completed, 4 unchanged, 0 rejected"
    assert leads(api) == expected
    assert bring.rejected() == []
    assert api.contact(1, "tg:4")["lead_id"] == 3


def test_what_a_cell_has_several_of_is_told_apart_and_columns_may_be_alike(bring: Importer, api: Api) -> None:
    printed = bring(
        "Фамилия;Имя;Телефон;Телефон 2;Почта;Внешний ID;Город\n"
        'Ли;Анна;"89991234501, 8-999-123-45-02/89991234501";+7 999 123 45 03;a@example.com b@example.com;"tg:1;wa:1";\n'
        ";;;89991234503;c@example.com;;\n"
    )
    phones = [f"+7999123450{number}" for number in (1, 2, 3)]
    emails = ["a@example.com", "b@example.com", "c@example.com"]
    assert leads(api) == [("Ли Анна", ["tg:1", "wa:1"], phones, emails)]
    assert summary(printed) == "2 read, 1 added, 1 completed, 0 unchanged, 0 rejected"
    assert "Телефон 2 (phone)" in printed
    assert "Город" not in printed


def test_a_line_that_names_two_leads_is_one_of_them_and_says_what_is_anothers(bring: Importer, api: Api) -> None:
    """As for a contact: the external id names the lead, else the phone; of several the first."""
    api.source()
    for number in (1, 2):
        api.contact(1, f"tg:{number}", lead_phone=f"8999123450{number}", lead_email=f"{number}@example.com")
    printed = bring(
        "phone,email,external_id\n"
        "89991234501,new@example.com,tg:2\n"
        "89991234502 / 89991234501,1@example.com,\n"
        "89991234509 / 89991234501,2@example.com,\n"
    )
    assert summary(printed) == "3 read, 0 added, 2 completed, 1 unchanged, 0 rejected"
    assert [lead[2] for lead in leads(api)] == [["+79991234501", "+79991234509"], ["+79991234502"]]
    assert leads(api)[1][3] == ["2@example.com", "new@example.com"]
    belongs = "belongs to lead {}, and this line is of lead {}"
    assert bring.rejected() == [
        ("2", "phone", "89991234501", belongs.format(1, 2)),
        ("3", "phone", "89991234501", belongs.format(1, 2)),
        ("3", "email", "1@example.com", belongs.format(1, 2)),
        ("4", "email", "2@example.com", belongs.format(2, 1)),
    ]


def test_a_line_has_at_most_a_hundred_identifiers(bring: Importer, api: Api) -> None:
    """Else one line could keep all who write waiting for minutes."""
    ids = [f"tg:{number:03}" for number in range(150)]
    assert "2 added" in bring(f"external_id,name\n{';'.join(ids)},Anna\ntg:0,Boris\n")
    assert [lead[:2] for lead in leads(api)] == [("Anna", ids[:100]), ("Boris", ["tg:0"])]
    why = "is one too many: a lead may have 100 identifiers"
    assert bring.rejected() == [("2", "external_id", each, why) for each in ids[100:]]


def test_what_cannot_be_used_goes_to_a_file_and_the_rest_is_used(bring: Importer, api: Api) -> None:
    printed = bring(
        "name,phone,email,external_id\n"
        "One,nonsense,one@example.com,\n"
        "Two,+1,@two,\n"
        'Three,,,"tg:3"x\n'
        "Four,,,tg:4,five,six\n"
        "Five,,,tg:\x005\n"
        f"{'S' * 256},,,tg:6\n"
        f"Seven,,,{'7' * 256}\n"
        "Eight\n"
        "=Nine,=9,,tg:9,\n"
    )
    assert summary(printed) == "9 read, 3 added, 0 completed, 0 unchanged, 6 rejected"
    assert leads(api) == [("One", [], [], ["one@example.com"]), (None, ["tg:6"], [], []), ("=Nine", ["tg:9"], [], [])]
    nothing = "has no phone, e-mail or external id that can be used"
    no_phone = "is not a phone number (without + it is read as one of RU)"
    rows = bring.rejected()
    assert f"{len(rows)} lines or values could not be used: see {bring.folder / 'leads.rejected.csv'}" in printed
    assert rows[:3] == [("2", "phone", "nonsense", no_phone), ("3", "phone", "+1", no_phone),
                        ("3", "email", "'@two", "is not an e-mail address")]  # fmt: skip
    assert rows[3] == ("3", "", "", nothing)
    assert rows[4][0] == "4"
    assert "quotes can't be read, up to line 4" in rows[4][3]
    assert rows[5] == ("5", "", "", "has 6 cells, the first line has 4")
    assert rows[6:8] == [("6", "external_id", "tg:\x005", "has a NUL"), ("6", "", "", nothing)]
    too_long = "is longer than 255 letters"
    assert rows[8:11] == [("7", "name", "S" * 256, too_long), ("8", "external_id", "7" * 256, too_long),
                          ("8", "", "", nothing)]  # fmt: skip
    assert rows[11:] == [("9", "", "", nothing), ("10", "phone", "'=9", no_phone)]


def test_columns_are_mapped_by_hand_or_ignored(bring: Importer, api: Api) -> None:
    content = "Кому,Связь=1,Phone,Contact\nАнна,89991234501,89991234502,Shop\n"
    bring(content, "--map", "кому=name", "--map", "Связь=1=phone", "--map", "Phone=ignore", "--map", "Contact=ignore")
    assert leads(api) == [("Анна", [], ["+79991234501"], [])]
    assert "no column 'Nobody', but 'Кому'" in bring(content, "--map", "Nobody=name", expect=1)
    assert "must be one of name, " in bring(content, "--map", "Phone=fax", expect=1)
    assert "COLUMN=FIELD" in bring(content, "--map", "Phone", expect=2)
    assert "named twice" in bring(content, "--map", "Phone=phone", "--map", "phone=email", expect=2)


def test_the_leads_of_an_export_are_known_again(bring: Importer, api: Api) -> None:
    api.source()
    for number in (1, 2):
        api.contact(1, f"tg:{number}", lead_phone="89991234501", lead_name="=Ivan", lead_email=f"{number}@example.com")
    export, before = api.client.get("/contacts/export").content, leads(api)
    assert summary(bring(export)) == "2 read, 0 added, 0 completed, 2 unchanged, 0 rejected"
    assert leads(api) == before


# --- dry -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(bring: Importer, api: Api, database: str) -> None:
    api.source()
    api.contact(1, "tg:1", lead_phone="89991234501")
    api.contact(1, "tg:2")
    tables = ("lead", "lead_identifier", "contact")
    before = [sql(database, f"SELECT * FROM {table}") for table in tables]
    content = (
        "name,phone,email,external_id\n"
        "Ivan,89991234501,,\n"
        ",89991234501,one@example.com,tg:2\n"
        "Neu,89991234509,,\n"
        "Neu,89991234509,neu@example.com,\n"
        ",89991234509,,\n"
        ",,neu@example.com,tg:1\n"
        ",x,,\n"
    )
    dry = bring(content, "--dry-run")
    told = bring.rejected()
    assert [sql(database, f"SELECT * FROM {table}") for table in tables] == before
    assert summary(dry) == "7 read, 1 added, 3 completed, 2 unchanged, 1 rejected; a dry run: nothing was changed"
    assert summary(bring(content)) == "7 read, 1 added, 3 completed, 2 unchanged, 1 rejected"
    assert bring.rejected() == told
    assert summary(bring(content, "--dry-run")).startswith("7 read, 0 added, 0 completed, 6 unchanged, 1 rejected")


# --- what files there are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_found(tmp_path: Path, encoding: str, delimiter: str) -> None:
    rows = [["ФИО", "Телефон, моб;", "E-mail"], ['Анна "А"; | Ли', "89991234501", "a,b\tc"], ["Ёж", "", "d\r\ne"]]
    file = tmp_path / "leads.csv"
    with file.open("w", encoding=encoding, newline="") as text:
        csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    read = leads_csv.LeadsFile(file, {"Телефон, моб;": "phone"})
    assert read.encoding == ("utf-8-sig" if encoding.startswith("utf-8") else encoding)
    assert (read.delimiter, read.columns, read.lines) == (delimiter, rows[0], 2)
    one, other = read.read()
    assert [value.text for value in one.names] == ['Анна "А"; | Ли']
    assert [(kind, value.text) for kind, value in one.identifiers] == [
        ("phone", "89991234501"), ("email", "a"), ("email", "b"), ("email", "c")
    ]  # fmt: skip
    assert (other.number, [value.text for _, value in other.identifiers]) == (3, ["d", "e"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1: has no names of columns"),
        (b"\n\nphone\n", "line 1: has no names of columns"),
        (b"PK\x03\x04\x14\x00\x06\x00", "is a ZIP or XLSX file, not CSV"),
        (b"\x1f\x8b\x08\x00", "is a gzip file, not CSV"),
        (b"city,age\nOmsk,5\n", "--map"),
        (b"name\nAnna\n", "--map"),
        (b'phone\n1\n"89991234501\n' + b"8999123450\n" * 50, "line 3: a quote is opened, and not closed"),
        (b'phone\n"' + b"8999123450\n" * 30_000, "line 2 is longer than 131,072 letters: is a quote opened"),
        (b'phone\n"' + b'a","\n' * 50_000, "line 2 is longer"),
        (b'"phone\n89991234501\n', "line 1: a quote is opened, and not closed"),
        (b"phone\n1\n" + b"1" * 200_000, "line 3 is longer than 131,072 letters"),
        (b"\x00" * 200_000, "line 1 is longer than 131,072 letters"),
        (b"phone\n\x98\n", "is no text in UTF-8, UTF-16 or Windows-1251"),
        (b"\xff\xfep", "is no text in UTF-8, UTF-16 or Windows-1251"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line_before_anything_is_added(
    tmp_path: Path, path: Path, content: bytes, words: str
) -> None:
    printed = Importer(f"sqlite:///{path}", tmp_path)(content, expect=1)
    assert words in printed
    assert len(printed.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["leads.csv"]


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    for name, words in (("nothing.csv", "does not exist"), ("", "is a directory")):
        assert words in run("import", "leads", str(tmp_path / name), expect=2)


@pytest.mark.no_cover
def test_no_file_takes_much_memory(tmp_path: Path) -> None:
    """A line of 100 MB, which need not be written to be read, and 5,000 leads."""
    file = tmp_path / "leads.csv"
    with file.open("wb") as content:
        content.write(b"phone\n")
        content.truncate(100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(leads_csv.StartupError, match="line 2 is longer"):
            leads_csv.LeadsFile(file, {})
        file.write_bytes(b"phone\n" + b"89991234501\n" * 5_000)
        read = leads_csv.LeadsFile(file, {})
        assert sum(1 for _ in read.read()) == read.lines == 5_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_tables_that_are_not_of_this_version_are_refused(path: Path, tmp_path: Path) -> None:
    bring = Importer(empty_file(path), tmp_path)
    sql(bring.url, "UPDATE alembic_version SET version_num = '0000'")
    for options in (["--dry-run"], []):
        assert "0000" in bring("phone\n89991234501\n", *options, expect=1)


# --- interrupted -----------------------------------------------------------------------------------------------------

MANY = "phone,external_id\n" + "".join(f"8999123{number:04},tg:{number}\n" for number in range(550))


@pytest.mark.seconds(4)
def test_stopped_by_ctrl_c_and_killed_nothing_is_lost_or_there_twice(bring: Importer, api: Api) -> None:
    """The command is a process of its own, for nothing less can be killed."""
    file = bring.folder / "many.csv"
    file.write_text(MANY)
    command = [sys.executable, "-m", "crm", "import", "leads", str(file)]
    there = 0
    for number in (signal.SIGINT, signal.SIGKILL):
        with at_a_terminal(command, env={**os.environ, "DATABASE_URL": bring.url}, stderr=subprocess.STDOUT) as process:
            while api.get("/stats/")["leads"] < there + import_leads.BATCH:
                assert process.poll() is None
                time.sleep(0.03)
            process.send_signal(number)
            printed, _ = process.communicate()
        there = api.get("/stats/")["leads"]
        assert (there % import_leads.BATCH, there < 550) == (0, True)
        if number == signal.SIGINT:
            assert process.returncode == 1
            assert printed.endswith("Error: stopped: what was added stays, and the next run adds the rest\n")
    assert summary(bring(MANY)) == f"550 read, {550 - there} added, 0 completed, {there} unchanged, 0 rejected"
    assert api.get("/stats/")["leads"] == 550
    assert bring.rejected() == []
