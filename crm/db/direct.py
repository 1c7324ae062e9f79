"""Statements given to the driver itself, for what happens most: that a contact is registered, or closed.

SQLAlchemy's `execute` takes as long again as SQLite does, for each of the six statements of a registration. Here a
statement is compiled once, of the same tables, and its values are converted as the dialect does it.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect


def run(connection: Connection, statement: Any, parameters: Mapping[str, Any]) -> list[Any]:
    """The rows of a statement, as named tuples; as `Connection.execute` does it, and with the same errors.

    For statements that live as long as the process, without lists (`expanding`) in them.
    """
    prepared = _prepare(statement, connection.dialect, tuple(parameters))
    values = prepared.values(parameters)
    if not connection.in_transaction():
        connection.begin()
    cursor = None
    try:
        cursor = connection.connection.cursor()
        cursor.execute(prepared.sql, values)
        if not prepared.is_awaited:
            return []
        if (pipeline := connection.get_execution_options().get("pipeline")) is not None:  # see `postgres._execute`
            pipeline.sync()
        return prepared.rows(cursor)
    except connection.dialect.loaded_dbapi.Error as error:
        connection._handle_dbapi_exception(error, prepared.sql, values, cursor, None)  # raises, as `execute` does


class Prepared:
    """A statement for one dialect, with what its values become on the way in and out."""

    def __init__(self, statement: Any, dialect: Dialect, names: tuple[str, ...]) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=names)
        binds = compiled.binds
        self.sql = str(compiled)
        self.is_awaited = statement.is_select and statement.get_execution_options().get("wait", True)
        self._statement, self._dialect = statement, dialect
        self._own = {name: bind.effective_value for name, bind in binds.items() if not bind.required}
        converts = {name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in binds.items()}
        self._binds = [(name, converts[name]) for name in (compiled.positiontup if dialect.positional else binds)]
        self._make_row: Callable[[Any], Any] | None = None

    def values(self, parameters: Mapping[str, Any]) -> Any:
        given = {**self._own, **parameters}
        values = [given[name] if convert is None else convert(given[name]) for name, convert in self._binds]
        if self._dialect.positional:
            return tuple(values)
        return {name: value for (name, _), value in zip(self._binds, values, strict=True)}

    def rows(self, cursor: Any) -> list[Any]:
        if self._make_row is None:
            self._make_row = self._row_maker([column[1] for column in cursor.description])
        return [self._make_row(row) for row in cursor.fetchall()]

    def _row_maker(self, types: list[Any]) -> Callable[[Any], Any]:
        """types: of the columns, in the driver's words."""
        columns, dialect = self._statement.selected_columns, self._dialect
        make: Any = namedtuple("Row", columns.keys())._make  # type: ignore[attr-defined]
        implementations = [column.type.dialect_impl(dialect) for column in columns]
        processors = [each.result_processor(dialect, type_) for each, type_ in zip(implementations, types, strict=True)]
        converts = [(place, processor) for place, processor in enumerate(processors) if processor is not None]

        def make_row(row: Any) -> Any:
            values = list(row)
            for place, convert in converts:
                values[place] = convert(values[place])
            return make(values)

        return make_row if converts else make


_prepare = lru_cache(200)(Prepared)
