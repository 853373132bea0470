"""Types of columns, and a function of SQL on moments.

SQLite lets anything into a column: what is no value of its type is read as it is.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Date, DateTime, Dialect, TypeDecorator, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class UtcDateTime(TypeDecorator[datetime]):
    """A moment to the second, kept in UTC: databases differ in what they make of time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what the database keeps of a moment; ValueError if it has no time zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value and value.astimezone(UTC).replace(tzinfo=None, microsecond=0)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment with its time zone."""
        if value is None:
            return None
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.replace(microsecond=0)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return the function that reads a value; what is no moment in SQLite stays as it is."""
        return _tolerant(super().result_processor(dialect, coltype))


class Day(TypeDecorator[date]):
    """A date; what is none in SQLite stays as it is."""

    impl = Date
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return the function that reads a value."""
        return _tolerant(super().result_processor(dialect, coltype))


def _tolerant(process: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return value if process is None else process(value)
        except (TypeError, ValueError):
            return value

    return read


class second_of(FunctionElement[datetime]):  # noqa: N801 - a function of SQL
    """A moment in SQL, to be compared with another one: both as UtcDateTime reads them.

    A moment that was written by hand may have a fraction of a second, or none. SQLite compares
    moments as texts, in which the fraction makes a difference even if it is 0.
    """

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, moment: ColumnElement[datetime | None] | datetime) -> None:
        super().__init__(literal(moment, UtcDateTime()) if isinstance(moment, datetime) else moment)


@compiles(second_of)
def _as_it_is(element: second_of, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(second_of, "sqlite")
def _as_text(element: second_of, compiler: SQLCompiler, **options: Any) -> str:
    return f"datetime({compiler.process(element.clauses, **options)})"


@compiles(second_of, "postgresql")
def _truncated(element: second_of, compiler: SQLCompiler, **options: Any) -> str:
    return f"date_trunc('second', {compiler.process(element.clauses, **options)})"
