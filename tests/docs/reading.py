"""Reading the documents: blocks, commands, tables, and whether an answer is the one that is shown."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
README, RUNNING, INSIDE, BOTS = "README.md", "crm/docs/running.md", "crm/docs/inside.md", "crm/docs/bots.md"
DOCUMENTS = (README, RUNNING, INSIDE, BOTS)

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
KEY = re.compile(r"crm_[\w-]{4,}(\.\.\.)?")
PROGRAM = re.compile(
    r"(\.venv/bin/\w+|python3?|curl|sqlite3|git|docker|rm|createuser|createdb|pg_dump|pg_restore|\.ci/run) ."
)


class Block(NamedTuple):
    language: str
    text: str
    output: "Block | None" = None  # the block right below, if that shows what comes out


def read(document: str) -> str:
    return (ROOT / document).read_text()


def blocks(document: str) -> list[Block]:
    """In their order, without those that are the output of others."""
    found: list[Block] = []
    text, end = read(document), -1
    for match in FENCE.finditer(text):
        block = Block(match[1], match[2])
        if end >= 0 and not text[end : match.start()].strip() and block.language in ("json", "text"):
            found[-1] = found[-1]._replace(output=block)
        else:
            found.append(block)
        end = match.end() if found[-1].language in ("sh", "python") and found[-1].output is None else -1
    return found


def commands(text: str) -> Iterator[str]:
    """Those of a block, one by one: a line with what continues it, and its parts between `&&`."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line)
        try:
            words = shlex.split("\n".join(lines), comments=True)
        except ValueError:  # inside of quotes, or after a backslash
            continue
        if words:
            yield from _parts("\n".join(lines))
        lines = []
    assert not lines, f"the end of a command is missing: {text}"


def _parts(line: str) -> list[str]:
    quoted = re.compile(r"""'[^']*'|"[^"]*"|\s&&\s|\s#.*|.""", re.S)
    parts = [""]
    for piece in quoted.findall(line):
        if piece.strip() == "&&":
            parts.append("")
        elif not piece.lstrip().startswith("#"):
            parts[-1] += piece
    return [part.strip() for part in parts]


def bare(command: str) -> str:
    """Without its folder and variables, as prose names it."""
    return re.sub(r"^(\w+=\S+ )*(\.venv/bin/)?", "", command).removesuffix(" &")


def prose(document: str) -> str:
    return FENCE.sub("", read(document))


def code_words(document: str) -> list[str]:
    """What stands in backticks in the prose."""
    return [" ".join(word.split()) for word in re.findall(r"`([^`]+)`", prose(document))]


def section(document: str, heading: str) -> str:
    """The prose below a heading, up to the next one of its kind."""
    return re.split(r"^## ", prose(document).partition(f"\n## {heading}\n")[2], flags=re.M)[0]


def table(text: str, nth: int = 0) -> list[list[str]]:
    """The rows of a table, without its head."""
    found = re.findall(r"(?:^\|.*\n)+", text + "\n", re.M)[nth]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in found.splitlines()[2:]]


# --- answers ---------------------------------------------------------------------------------------------------------


def shown(text: str) -> list[Any]:
    """The JSON documents of a block, with `...` as a member of its own where it stands outside of strings."""

    def mark(match: re.Match[str]) -> str:
        if match[0] != "...":
            return match[0]
        opened = []  # the brackets that are open here
        for character in re.sub(r'"(?:[^"\\]|\\.)*"', "", text[: match.start()]):
            if character in "[{":
                opened.append(character)
            elif character in "]}":
                opened.pop()
        return '"...":"..."' if opened[-1] == "{" else '"..."'

    text_left = re.sub(r'"(?:[^"\\]|\\.)*"|\.\.\.', mark, text).strip()
    documents = []
    while text_left:
        document, end = json.JSONDecoder().raw_decode(text_left)
        documents.append(document)
        text_left = text_left[end:].lstrip()
    return documents


def differences(expected: Any, actual: Any, at: str = "") -> list[str]:
    """Where an answer is not as shown. `...` stands for anything; times and keys need only look like such."""
    if expected == "...":
        return []
    if type(expected) is not type(actual):
        return [f"{at}: {actual!r} is shown as {expected!r}"]
    if isinstance(expected, dict):
        return _members(expected, actual, at)
    if isinstance(expected, list):
        is_open = expected[-1:] == ["..."]
        expected = expected[:-1] if is_open else expected
        if len(actual) < len(expected) or (len(actual) > len(expected) and not is_open):
            return [f"{at}: has {len(actual)} entries, shown are {len(expected)}"]
        pairs = enumerate(zip(expected, actual, strict=False))
        return [found for n, (one, other) in pairs for found in differences(one, other, f"{at}[{n}]")]
    if isinstance(expected, str):
        alike = any(kind.fullmatch(expected) and kind.fullmatch(actual) for kind in (TIME, KEY))
        return [] if alike or is_text(expected, actual) else [f"{at}: {actual!r} is shown as {expected!r}"]
    return [] if expected == actual else [f"{at}: {actual!r} is shown as {expected!r}"]


def _members(expected: dict[str, Any], actual: dict[str, Any], at: str) -> list[str]:
    names = [name for name in expected if name != "..."]
    same = [name for name in actual if name in expected]
    if "..." in expected and names != same:
        return [f"{at}: has {list(actual)}, shown are {names}"]
    if "..." not in expected and list(expected) != list(actual):
        return [f"{at}: has {list(actual)}, shown are {list(expected)}"]
    return [found for name in names for found in differences(expected[name], actual[name], f"{at}.{name}")]


def is_text(expected: str, actual: str) -> bool:
    """`...` stands for anything, also for lines."""
    pattern = ".*".join(map(re.escape, expected.strip().split("...")))
    return re.fullmatch(pattern, actual.strip(), re.S) is not None
