"""Tables as CSV for people, who open them in a spreadsheet. rows.csv is for programs, and keeps every text as it is."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def for_people(table: "pd.DataFrame") -> str:
    """Return a table whose texts no spreadsheet takes for a formula: one that begins like it gets an apostrophe."""
    texts = {i: table.iloc[:, i].map(inert) for i, kind in enumerate(table.dtypes) if kind.kind not in "biufc"}
    columns = [texts.get(i, table.iloc[:, i]) for i in range(table.shape[1])]
    if texts:
        import pandas as pd

        table = pd.concat(columns, axis=1)
    return table.rename(columns=inert).to_csv(index=False, lineterminator="\n")


def inert(value: Any) -> Any:
    """Return a value, a text that would be a formula behind an apostrophe."""
    if not isinstance(value, str):
        return value
    formula = FORMULA.match(value) and not NUMBER.fullmatch(value)
    text = value.replace("\r", " ")  # which csv leaves without quotes, and readers end lines at
    return f"'{text}" if formula else text
