"""What is reported of a calibration: sentences, tables and a figure from rows."""

from itertools import product
from pathlib import Path

import pandas as pd
from calibrated import row

from comparisons.benchmarks import calibration, calibration_report
from comparisons.benchmarks.scoring import SWEEP
from comparisons.disk import writing
from comparisons.reporting import markdown


def test_an_ordering_that_turns_is_named() -> None:
    rows = pd.DataFrame(
        [
            row(),
            row(backend="wake_sleep", estimate=-9.5, truth=-11.0),
            row(backend="mean_field", estimate=-9.0, truth=-9),
        ]
    )
    found = "\n".join(calibration_report.findings(rows))
    assert "Of 3 pairs of backends, 1 is ordered otherwise by appendix_d, chains anew than by log p(x)." in found
    table = markdown.printed(calibration_report.blocks(rows))
    assert "| aevb minus wake_sleep | +0.90 | -0.50 |" in table and "aevb minus mean_field" not in table


def test_the_report_has_a_table_for_each_part_and_a_figure() -> None:
    names = list(SWEEP)
    swept = [
        row(part=part, n_latent=k, estimator=name, level=level, rmse=0.1 / (level + 1), seconds_per_1000=level + 1.0)
        for part, k in (("linear", 2), ("linear", 20), ("mnist", 3), ("simulated", 20))
        for name, level in product(names, (0, 1, 2))
    ]
    bounds = [row(part="simulated", n_latent=20, estimator="bidirectional", gap=0.05), row(estimator="lower bound")]
    engines = row(part="engines", difference=0.001, mean_in_errors=0.5, worst_in_errors=2.0)
    rows = pd.DataFrame([*swept, *bounds, row(), engines])
    text = markdown.printed(calibration_report.blocks(rows))
    for title in (*calibration_report.TITLES.values(), "The paper's estimator", "Both engines"):
        assert title in text
    assert "0.050 nat apart" in text and set(names) <= set(calibration_report.STYLES)
    assert calibration_report.error_against_cost(rows) == calibration_report.error_against_cost(rows)


def test_it_is_said_how_each_estimator_speaks_of_itself() -> None:
    rows = pd.DataFrame(
        [
            row(part="defaults", decoder="a", estimator="annealed, q", coverage=0.9, bad=0.2, bad_flagged=0.5),
            row(
                part="defaults",
                decoder="b",
                estimator="annealed, q",
                coverage=1.0,
                n_points=300,
                bad=0.1,
                bad_flagged=1.0,
            ),
            row(part="defaults", decoder="a", estimator="importance, q", coverage=0.97),
        ]
    )
    found = "\n".join(calibration_report.findings(rows))
    assert "on 400 points of 2 decoders of digits, the 95 % intervals of annealed, q cover 98%; it is off" in found
    assert "it is off by more than 0.5 nat on 12.5%, and flags 80% of them." in found
    assert "importance, q cover 97%; it is off by more than 0.5 nat on 0.0%." in found
    printed = markdown.printed(calibration_report.blocks(rows))
    assert "| a | annealed, q | 100 |" in printed and "latent variables 3" in printed


def test_what_was_run_is_kept_and_the_report_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    writing.write_rows(tmp_path / "parts" / "paper.csv", [row(), row(estimator="lower bound", flagged=0.0)])
    calibration.report(tmp_path)
    assert (
        len(pd.read_csv(tmp_path / "rows.csv")) == 2 and "The paper's estimator" in (tmp_path / "table.md").read_text()
    )
