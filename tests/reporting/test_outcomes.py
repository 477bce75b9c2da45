"""A run that failed is no finding about its method: not in a mean, a table, a figure, a verdict or a claim."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from frames import FIGURE3, NONE, curve, frame, pipes, row, run, seeds, table_of

from comparisons import report
from comparisons.disk import writing
from comparisons.paper import answer, full_vb_report, verdicts
from comparisons.paper.found import read
from comparisons.reporting import agreement, figures, markdown, outcomes, tables, terminal
from comparisons.runner.rows import to_csv


def vb_table(rows: pd.DataFrame) -> str:
    return markdown.printed(full_vb_report.blocks(rows))


LOST: dict[str, Any] = {"value": math.nan, "stderr": math.nan}
# As `comparisons.runner.run.failed` writes it: at no points seen, after no work.
BROKEN: dict[str, Any] = {**LOST, "status": "failed", "n_seen": 0, "decoder_evals": 0, "seconds": 0.0, "n_points": 0}
DIVERGED: dict[str, Any] = {**LOST, "status": "diverged"}


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        (["ok"], "ok"),
        (["failed"], "failed"),
        (["ok", "failed"], "ok"),
        (["diverged", "failed"], "diverged"),
        (["ok", "diverged", "contradicted"], "diverged"),
        (["ok", "contradicted", "failed"], "contradicted"),
    ],
)
def test_one_word_for_several_seeds(statuses: list[str], word: str) -> None:
    assert outcomes.word(pd.DataFrame({"status": statuses})) == word


# Tables


def test_a_run_that_failed_is_called_failed_and_its_reason_stands_under_the_table() -> None:
    rows = frame(row(**BROKEN), row(**{**BROKEN, "split": "test"}), row(backend="wake_sleep"))
    text = table_of(rows.assign(reason="MemoryError: <4 GB>\nin a | line"))
    head, _, *lines = pipes(text)
    assert [line[head.index("lower bound, train")] for line in lines] == ["failed", "-10.00"]
    assert lines[0][head.index("seeds")] == "0 (1 failed)" and lines[0][head.index("seconds")] == "-"
    assert "seed 0: failed (MemoryError: &lt;4 GB&gt; in a | line)." in text and outcomes.FAILED in text
    assert "diverged" not in text and "nan" not in text and "no q" not in text
    assert "the reason was not written down" in table_of(rows)
    assert "failed" in terminal.plain(rows) and "diverged" not in terminal.plain(rows)


def test_a_seed_that_failed_is_missing_from_means_and_costs() -> None:
    rows = frame(*seeds("pyro", [1.0, 2.0, 6.0]), row(seed=3, **BROKEN))
    (with_it,), (without,) = (tables.summary(part).itertuples() for part in (rows, rows[rows.seed < 3]))
    assert (with_it.status, with_it.seeds, with_it.failed) == ("ok", 3, 1)
    for name in ("lower_bound_train", "lower_bound_train_stderr", "decoder_evals", "seconds", "n_seen", "step_size"):
        assert getattr(with_it, name) == getattr(without, name), name
    assert "| 3 (1 failed) |" in table_of(rows)


def test_several_estimators_of_fits_of_which_one_failed_or_diverged() -> None:
    metrics = ("log_px_quadrature_nats", "log_px_importance_nats")
    ran = [row(metric=metric, value=-5.0) for metric in metrics]
    broken = [row(seed=1, metric=metric, **BROKEN) for metric in metrics]
    assert tables.estimators(frame(*ran, *broken)).quadrature.tolist() == [-5.0]
    gone = frame(*(row(metric=metric, **DIVERGED) for metric in metrics))
    assert "| diverged | diverged |" in table_of(gone)


def test_engines_are_compared_over_the_seeds_that_ran() -> None:
    rows = [*seeds("numpyro", [1.0, 2.0, 6.0]), *seeds("pyro", [0.0, 1.0, 2.0])]
    (alone,) = agreement.agreement(tables.summary(frame(*rows))).itertuples()
    (beside,) = agreement.agreement(tables.summary(frame(*rows, row(engine="pyro", seed=3, **BROKEN)))).itertuples()
    assert (alone.difference, alone.z, alone.seeds) == (beside.difference, beside.z, beside.seeds)
    broken = [row(engine="pyro", seed=seed, **BROKEN) for seed in range(3)]
    assert agreement.agreement(tables.summary(frame(*seeds("numpyro", [1.0, 2.0]), *broken))).empty


def test_the_table_of_full_vb_says_failed_too() -> None:
    rows = frame(*(row(**BROKEN, method=method) for method in ("", "theta=vb")))
    text = vb_table(rows.assign(reason="TypeError"))
    assert "failed (TypeError)" in text and "vb: failed." in text and "diverged" not in text and "nan" not in text
    both = frame(row(value=-7.0), row(seed=1, **BROKEN))
    assert "| -7.00 |" in vb_table(both)


# Figures


def test_a_curve_ends_where_its_first_seed_diverged_and_heeds_no_seed_that_failed() -> None:
    whole = [row(seed=s, n_seen=n, value=-1.0) for s in (0, 1) for n in (10, 100, 1000)]
    lost = row(seed=1, n_seen=100, **DIVERGED)
    rows = frame(*(one for one in whole if (one["seed"], one["n_seen"]) not in ((1, 100), (1, 1000))), lost)
    assert outcomes.drawable(rows, tables.CELL).n_seen.tolist() == [10, 10]
    failed = frame(*whole, row(seed=2, **BROKEN))
    assert outcomes.drawable(failed, tables.CELL).n_seen.tolist() == frame(*whole).n_seen.tolist()
    assert figures.learning_curves(failed) == figures.learning_curves(frame(*whole))
    figures.learning_curves(frame(row(**BROKEN)))


# Verdicts, claims and the report


def test_no_verdict_or_claim_knows_of_a_run_that_failed() -> None:
    broken = [one | BROKEN for one in run({1e6: 0.0}, seed=1)]
    assert verdicts.verdicts(frame(*run({1e6: -110.0}), *broken), NONE, [curve()])[0].word == "reproduced"
    assert {v.word for v in verdicts.verdicts(frame(*broken), NONE, [curve()])} == {"not run"}
    best = {**FIGURE3, "n_train": 1000, "backend": "monte_carlo_em"}
    rows = run({1e6: -140.0}, **best) + run({1e6: -145.0}, **{**best, "backend": "aevb"})
    rows += [
        one | BROKEN
        for name in ("monte_carlo_em", "aevb")
        for one in run({1e6: 0.0}, **{**best, "backend": name}, seed=1)
    ]
    claim = verdicts.claims(NONE, frame(*rows))[2]
    assert claim.word == "holds" and "-140.0, AEVB -145.0" in claim.evidence[0]
    gone = [one | BROKEN for one in run({1e6: 0.0}, **{**best, "backend": "aevb"})]
    assert verdicts.claims(NONE, frame(*run({1e6: -140.0}, **best), *gone))[2].word == "not run"


def test_the_report_names_what_failed(tmp_path: Path) -> None:
    rows = run({1e6: -140.0}, **FIGURE3) + [
        one | BROKEN | {"cell": "lost"} for one in run({1e6: 0.0}, **FIGURE3, seed=1)
    ]
    out = tmp_path / "marginal_likelihood"
    writing.write(out / "rows.csv", to_csv(rows))
    writing.write_json(out / "cells" / "lost" / "manifest.json", {"status": "failed", "reason": "TypeError: 'x'"})
    explained = outcomes.explained(frame(*rows), out)
    assert {cell: part.reason.unique().item() for cell, part in explained.groupby("cell")}["lost"] == "TypeError: 'x'"
    assert report.main(["--out", str(tmp_path)]) == 0
    for name in ("README.md", "index.html"):
        text = (tmp_path / name).read_text()
        assert "seed 1: failed (TypeError: " in text and "diverged" not in text, name


# What a bound contradicts


def test_a_contradicted_number_keeps_its_value_and_bears_a_mark() -> None:
    rows = frame(
        row(value=-5.0, status="contradicted"),
        row(metric="log_px_quadrature_nats", value=-6.0, status="contradicted"),
        row(split="test", value=-7.0),
        row(backend="wake_sleep"),
    )
    text = table_of(rows)
    assert "| - | - | -6.00 † | -7.00 | -5.00 † |" in text and text.count(outcomes.CONTRADICTED) == 1
    assert outcomes.CONTRADICTED in terminal.plain(rows) and outcomes.CONTRADICTED not in table_of(rows[2:])
    assert "exceeds log p(x)" in figures.learning_curves(rows) and "diverged" not in text
    assert "-5.00 †" in vb_table(rows)


def test_no_verdict_and_no_claim_rests_on_a_contradicted_number(tmp_path: Path) -> None:
    rows = run({1e7: -150.0}, **FIGURE3, status="contradicted")
    found = verdicts.verdicts(NONE, frame(*rows), [curve(figure="figure3", metric=verdicts.PAPERS)])
    assert found[1].word == "not trusted" and found[1].point and found[1].point.contradicted
    assert verdicts.number(found[1].point) == "-150.0 †"
    em = run({1e7: -130.0}, **{**FIGURE3, "backend": "monte_carlo_em"})
    assert verdicts.claims(NONE, frame(*rows, *em))[3].word == "not run"
    rows += run({1e6: -147.0}, **{**FIGURE3, "n_train": 1000})
    writing.write(tmp_path / "marginal_likelihood" / "rows.csv", to_csv(rows))
    there = read(tmp_path)
    assert "a bound contradicts it" in answer.summary(there)
    assert report.main(["--out", str(tmp_path)]) == 0
    for name in ("README.md", "index.html"):
        assert outcomes.CONTRADICTED in (tmp_path / name).read_text()
