"""Tables from rows: a template a column, as of `str.format`, in which {0} is the row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def filled(rows: "pd.DataFrame", columns: Mapping[str, str]) -> list[list[str]]:
    """Return a table's body: a line for each row, a cell for each template. A share that is not known is a dash."""
    return [[text.format(row).replace("nan%", "-") for text in columns.values()] for row in rows.itertuples()]


def with_error(name: str) -> str:
    """Return the template of a number with its standard error."""
    return f"{{0.{name}:.2f}} ± {{0.{name}_stderr:.2f}}"
