"""A file of leads as other systems write it: its encoding, its delimiter, which column is what, and its lines.

Never more of it is in memory than one line, which may not be long: so no file, whatever it is, takes the machine down.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TextIO, get_args

from crm.errors import StartupError
from crm.fields import IdentifierKind

Field = Literal["name", "external_id", "phone", "email"]
IGNORED = "ignore"  # what --map says of a column that is none of these
LONGEST = 131_072  # letters of a lead; the csv module allows a cell as many
PIECE = 1 << 20  # bytes

# By these names, in any case, and with `lead` before or a number behind them.
NAMES: dict[Field, str] = {
    "name": "name, full name, fullname, first name, last name, surname, middle name, customer, customer name, client,"
    " client name, contact name, lead,"
    " имя, фамилия, отчество, фио, ф и о, полное имя, клиент, имя клиента, контакт, имя контакта, лид",
    "phone": "phone, phones, phone number, mobile, mobile phone, cell, cell phone, telephone, tel, work phone,"
    " home phone, телефон, телефоны, номер телефона, тел, мобильный, мобильный телефон, моб телефон, моб,"
    " сотовый, рабочий телефон, домашний телефон",
    "email": "email, emails, e mail, e mails, mail, email address, e mail address,"
    " почта, эл почта, электронная почта, электронный адрес, адрес электронной почты, имейл, емейл",
    "external_id": "external id, external ids, externalid, telegram id, whatsapp id, messenger id,"
    " внешний id, внешний ид, внешний код, внешний идентификатор, id telegram, телеграм id, id телеграм",
}
FIELDS: dict[str, Field] = {name: field for field, names in NAMES.items() for name in re.split(", *", names)}
# What stands between two in one cell.
SEVERAL: dict[IdentifierKind, str] = {"phone": r"[;,/\r\n]", "email": r"[;,\s]", "external_id": r"[;\r\n]"}
NOT_CSV = {
    b"PK\x03\x04": "a ZIP or XLSX file",
    b"\x1f\x8b": "a gzip file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"%PDF": "a PDF",
}


class Value(NamedTuple):
    """What one cell says of the lead; or, of several in one cell, one of them."""

    column: str
    text: str


class Line(NamedTuple):
    """One lead: a line of the file, or several if a cell in quotes has several. `problem`: why it can't be read."""

    number: int
    names: list[Value]
    identifiers: list[tuple[IdentifierKind, Value]]
    problem: str | None = None


class LeadsFile:
    def __init__(self, path: Path, mapping: Mapping[str, str]) -> None:
        """mapping: of columns to a Field or IGNORED. Goes through the whole file once; raises StartupError unless it
        can be read to its end and some column is an identifier's."""
        self._path = path
        try:
            self.encoding = _encoding(path)
            with self._open() as file:
                self.delimiter = _delimiter(file.readline(LONGEST))
            _, self.columns, problem = next(self._rows(), (1, [], None))
            if problem or not any(self.columns):
                raise StartupError(f"{path}, line 1: {problem or 'has no names of columns'}")
            self.fields = self._fields(mapping)
            self.lines = sum(1 for _ in self.read())
        except OSError as error:
            raise StartupError(f"{path} can't be read: {error.strerror}") from error
        except UnicodeError as error:
            raise StartupError(f"{path} is no text in UTF-8, UTF-16 or Windows-1251") from error

    def read(self) -> Iterator[Line]:
        """The leads, without the lines in which nothing stands."""
        rows = self._rows()
        next(rows, None)
        for number, row, problem in rows:
            if problem is None and any(cell.strip() for cell in row[len(self.columns) :]):
                problem = f"has {len(row)} cells, the first line has {len(self.columns)}"
            if problem is not None:
                yield Line(number, [], [], problem)
            elif any(cell.strip() for cell in row):
                yield self._line(number, row)

    def _line(self, number: int, row: list[str]) -> Line:
        names: list[Value] = []
        identifiers: list[tuple[IdentifierKind, Value]] = []
        for column, field, cell in zip(self.columns, self.fields, row, strict=False):
            if field == "name" and cell.strip():
                names.append(Value(column, cell.strip()))
            for kind, between in SEVERAL.items():
                if kind == field:
                    parts = (part.strip() for part in re.split(between, cell))
                    identifiers += [(kind, Value(column, part)) for part in parts if part]
        return Line(number, names, identifiers)

    def _open(self) -> TextIO:
        return self._path.open(encoding=self.encoding, newline="")

    def _rows(self) -> Iterator[tuple[int, list[str], str | None]]:
        """Where each begins, its cells, and if they can't be told apart, why. Raises StartupError when that is so for
        all that follows."""
        begin = letters = 0  # of the present row

        def lines(file: TextIO) -> Iterator[str]:
            nonlocal letters
            while line := file.readline(LONGEST + 1):
                letters += len(line)
                if letters > LONGEST:
                    why = f"is longer than {LONGEST:,} letters: is a quote opened there, and not closed?"
                    raise StartupError(f"{self._path}, line {begin} {why}")
                yield line

        with self._open() as file:
            reader = csv.reader(lines(file), delimiter=self.delimiter, strict=True)
            while True:
                begin, letters = reader.line_num + 1, 0
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end" in str(error):
                        raise StartupError(f"{self._path}, line {begin}: a quote is opened, and not closed") from error
                    yield begin, [], f"its quotes can't be read, up to line {reader.line_num} ({error})"
                else:
                    yield begin, row, None

    def _fields(self, mapping: Mapping[str, str]) -> list[str | None]:
        """Of each column; None: it is not used."""
        columns = {column.strip().casefold() for column in self.columns}
        for column, field in mapping.items():
            if column.strip().casefold() not in columns:
                raise StartupError(f"{self._path} has no column {column!r}, but {', '.join(map(repr, self.columns))}")
            if field not in (*get_args(Field), IGNORED):
                raise StartupError(f"{column}={field}: must be one of {', '.join(get_args(Field))}, {IGNORED}")
        given = {column.strip().casefold(): field for column, field in mapping.items()}
        found = (given.get(column.strip().casefold(), FIELDS.get(_plain(column))) for column in self.columns)
        fields = [None if field == IGNORED else field for field in found]
        if not SEVERAL.keys() & set(fields):
            names = ", ".join(repr(column[:50]) for column in self.columns[:20])
            raise StartupError(
                f"{self._path}: none of its columns ({names}) is known as a phone, an e-mail or an external id:"
                ' name it, such as --map "Column=phone"'
            )
        return fields


def _plain(column: str) -> str:
    """As NAMES are written."""
    name = re.sub(r"[\W_]+", " ", column.casefold().replace("ё", "е")).strip()
    return re.sub(r"^lead (?=.)| ?\d+$", "", name)


def _delimiter(head: str) -> str:
    """Whichever of these the first line has most of, outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", head)
    return max(",;\t|", key=bare.count)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(4)
        for mark, kind in NOT_CSV.items():
            if begin.startswith(mark):
                raise StartupError(f"{path} is {kind}, not CSV: save it as CSV first")
        if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
    try:
        with path.open(encoding="utf-8-sig") as text:
            while text.read(PIECE):
                pass
    except UnicodeDecodeError:
        return "cp1251"
    return "utf-8-sig"
