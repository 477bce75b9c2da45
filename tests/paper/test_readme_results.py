"""No result is typed by hand: README's marks hold what the rows give, and nothing else of it is written."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from frames import FIGURE3, NONE, frame, run

from comparisons import cli, report
from comparisons.disk import writing
from comparisons.paper import readme
from comparisons.paper.found import Rows, read
from comparisons.paper.verdicts import Claim
from comparisons.reporting import outcomes
from comparisons.runner.rows import to_csv

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLAIM = Claim("Less is more", "mixed", ())


def small(values: dict[float, float], **changes: Any) -> list[dict[str, Any]]:
    return run(values, **{**FIGURE3, "n_train": 1000, **changes})


def result(*rows: dict[str, Any]) -> str:
    return readme.parts(Rows(NONE, frame(*rows), *[pd.DataFrame()] * 6), [CLAIM])["result"]


def test_the_results_in_the_readme_are_what_the_rows_give() -> None:
    """`make report` writes them."""
    found = read(ROOT / "reports")
    assert readme.renewed(README, readme.parts(found.rows, found.claims, found.known["figure3"])) == README


def test_the_table_has_each_method_at_the_last_stop_that_all_have() -> None:
    text = result(
        *small({1e6: -150.0, 1e7: -140.0}, backend="aevb"),
        *small({1e6: -145.0, 1e7: -141.0, 2e7: -130.0}, backend="wake_sleep"),
        *small({1e6: -146.0, 1e7: -140.0}, backend="monte_carlo_em", method="e_step=full", n_train=50_000),
    )
    assert "and 10 million points seen" in text
    assert "| AEVB | **-140.0** | -143.0 | - | - |" in text and "| wake-sleep | -141.0 | -146.6 | - | - |" in text
    assert "| Monte Carlo EM, `--e-step full` | - | - | **-140.0** | - | - |" in text
    assert "| mean-field VI | - | - | - | - | - |" in text
    assert text.endswith("\n\n- Less is more: **mixed**.") and outcomes.MARK not in text


def test_what_cannot_be_told_from_the_best_is_bold() -> None:
    seeds = [one for seed in (0, 1, 2) for one in small({1e7: -140.0 - seed}, backend="aevb", seed=seed)]
    text = result(*seeds, *small({1e7: -140.0}, backend="mean_field"), *small({1e7: -144.0}, backend="wake_sleep"))
    assert "| AEVB | **-141.0 ± 0.6** |" in text and "| mean-field VI | **-140.0** |" in text
    assert "| wake-sleep | -144.0 |" in text


def test_a_contradicted_number_is_under_its_mark_and_nobodys_best() -> None:
    doubted = small({1e7: -140.0}, backend="aevb", status="contradicted")
    text = result(*doubted, *small({1e7: -150.0}, backend="wake_sleep"))
    assert "| AEVB | -140.0 † |" in text and "| wake-sleep | **-150.0** |" in text
    assert f"\n\n{outcomes.CONTRADICTED}\n\n" in text
    assert "| AEVB | -140.0 † |" in result(*doubted)


def test_a_method_that_diverged_says_so() -> None:
    text = result(
        *small({1e7: float("nan")}, backend="aevb", status="diverged"), *small({1e7: -150.0}, backend="mean_field")
    )
    assert "| AEVB | diverged |" in text and "| mean-field VI | **-150.0** |" in text


def test_only_what_is_between_the_marks_is_written() -> None:
    text = "a <!-- x --> old <!-- /x --> b\n<!-- y --><!-- /y -->\n"
    assert readme.renewed(text, {"x": "1", "y": "2"}) == (
        "a <!-- x -->\n1\n<!-- /x --> b\n<!-- y -->\n2\n<!-- /y -->\n"
    )
    once = readme.renewed(text, {"x": "1", "y": "2"})
    assert readme.renewed(once, {"x": "1", "y": "2"}) == once


@pytest.mark.parametrize("content", [None, "", "<!-- result -->", "<!-- /result --><!-- result -->", 2 * README])
def test_a_readme_without_a_place_for_results_is_one_line(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "README.md"
    if content is not None:
        path.write_text(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: report.main(["--out", str(tmp_path / "out"), "--readme", str(path)]))
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.startswith("error: --readme") and err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir()) and (path.read_text() if path.exists() else None) == content


def test_the_report_writes_a_readme_when_told(tmp_path: Path) -> None:
    writing.write(tmp_path / "out" / "marginal_likelihood" / "rows.csv", to_csv(small({1e6: -140.5}, backend="aevb")))
    path = tmp_path / "README.md"
    path.write_text(README)
    assert report.main(["--out", str(tmp_path / "out")]) == 0 and path.read_text() == README
    assert report.main(["--out", str(tmp_path / "out"), "--readme", str(path)]) == 0
    assert "| AEVB | **-140.5** |" in path.read_text()
    assert "Not run yet." in path.read_text() and path.read_text().startswith(README[: README.index("<!-- output -->")])
