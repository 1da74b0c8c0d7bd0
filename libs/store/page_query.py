"""The query for the rows of a page's batches: it touches only the chunks of their times.

Batches of one page may lie hours apart: a backlog beside what is new, a spool beside the live stream. A range over all of
them would read every chunk between; so batches are put together only where no whole chunk lies between them.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter

from libs.marketdata.tables import GATHERER_TABLES

Part = tuple[int, int, int]
"""A batch of a table: batch_id, smallest and largest value of the table's time column, both inclusive."""


def rows_query(table_name: str, parts: Sequence[Part]) -> str:
    """Return the query for a table's rows of these batches, batch_id first.

    COPY takes no parameters, so the numbers stand in the text: that they are integers is what makes it safe.
    """
    table = GATHERER_TABLES[table_name]
    runs = " or ".join(_bounds(table.time_column, run) for run in _runs(parts, table.chunk))
    return " ".join(
        (
            "select batch_id,", ", ".join(table.column_names), "from", table.name,
            "where batch_id in (", ",".join(str(int(part[0])) for part in parts), ") and (", runs, ")",
        )
    )  # fmt: skip


def _bounds(time_column: str, run: Sequence[Part]) -> str:
    """Return what is there for the plan: bounds of the time to leave out chunks, of batch_id to pass the BRIN index once."""
    numbers, starts, ends = zip(*run, strict=True)
    return (
        f"batch_id between {int(min(numbers))} and {int(max(numbers))}"
        f" and {time_column} between {int(min(starts))} and {int(max(ends))}"
    )


def _runs(parts: Sequence[Part], chunk: int) -> Iterator[Sequence[Part]]:
    """Yield the batches in runs between whose times no whole chunk (of that width, microseconds) can lie."""
    run: list[Part] = []
    end = 0
    for part in sorted(parts, key=itemgetter(1)):
        if run and part[1] - end > chunk:
            yield run
            run = []
        end = max(end, part[2]) if run else part[2]
        run.append(part)
    yield run
