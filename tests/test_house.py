"""The layout of the house (crm/docs/inside.md): which rooms there are, and that imports between them run down only.

`python -m tests.test_house` prints the rooms with their levels, lines and imports.
"""

import ast
from pathlib import Path

CRM = Path(__file__).parents[1] / "crm"
# Top to bottom; rooms of one level don't import each other.
LEVELS: list[set[str]] = [
    {"__main__"},
    {"main", "tools"},
    {"api"},
    {"web"},
    {"outbox", "day", "leads"},
    {"queue"},
    {"identity", "distribution"},
    {"db"},
    {"models", "settings"},
    {"fields", "events", "errors"},
]
LEVEL = {room: -depth for depth, rooms in enumerate(LEVELS) for room in rooms}
MODULES = {
    ".".join(("crm", *path.relative_to(CRM).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in CRM.rglob("*.py")
    if "migrations" not in path.parts
}


def room_of(module: str) -> str:
    """`crm.db.base` is in `db`; what is in none is the package itself."""
    return [*module.split("."), "crm"][1]


def imports_of(module: str) -> set[str]:
    """The modules of crm that it imports, wherever in it that stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports say where from"
            members = {f"{node.module}.{name.name}" for name in node.names}
            found |= members & MODULES.keys() or {node.module or ""}
    return found & MODULES.keys() - {module}


IMPORTS = {module: imports_of(module) for module in MODULES}


def room_imports() -> set[tuple[str, str]]:
    """Pairs of rooms, of which the first imports the second. The package itself, with its version, is no room."""
    pairs = {(room_of(module), room_of(other)) for module in MODULES for other in IMPORTS[module]}
    return {(room, other) for room, other in pairs if room != other and "crm" not in (room, other)}


def circle_from(module: str, path: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The modules of a circle of imports that begins here, or none."""
    if module in path:
        return path
    return next((found for other in IMPORTS[module] if (found := circle_from(other, (*path, module)))), ())


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_every_module_is_in_a_room_of_the_house() -> None:
    assert {room_of(module) for module in MODULES} - {"crm"} == LEVEL.keys()


def test_imports_between_rooms_run_down_only() -> None:
    assert {(room, other) for room, other in room_imports() if LEVEL[room] <= LEVEL[other]} == set()


def test_no_imports_go_round_in_a_circle() -> None:
    assert [circle for module in MODULES if (circle := circle_from(module))] == []


def test_what_can_go_wrong_is_told_without_the_web_framework() -> None:
    """The essence can be read, and used, without knowing FastAPI."""
    essence = {"models", "fields", "identity", "distribution", "queue", "errors", "events", "settings", "db"}
    for module, path in MODULES.items():
        if room_of(module) in essence:
            assert "fastapi" not in path.read_text(), module


def test_the_essence_can_be_read_in_an_hour_and_no_module_is_long() -> None:
    assert sum(lines(path) for path in CRM.glob("*.py")) < 1500
    assert {module: lines(path) for module, path in MODULES.items() if lines(path) > 315} == {}


if __name__ == "__main__":
    for level, rooms in enumerate(LEVELS, 1):
        for room in sorted(rooms):
            inside = [path for module, path in MODULES.items() if room_of(module) == room]
            down = sorted(other for of, other in room_imports() if of == room)
            print(f"{level} {room:13}{sum(map(lines, inside)):5} lines  imports {', '.join(down) or '-'}")
    print(f"{len(LEVEL)} rooms on {len(LEVELS)} levels, {len(room_imports())} imports between rooms")
