"""Which reading of appendix E: distances from a known curve on both axes, on rows whose answer is known."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from frames import FIGURE3, frame, run

from comparisons import report
from comparisons.disk import writing
from comparisons.paper import readings
from comparisons.paper.curves import Curve
from comparisons.paper.runs import PAPERS

EM = {**FIGURE3, "backend": "monte_carlo_em"}
EACH = 16  # decoder evaluations a point


def papers(n_train: int, split: str) -> Curve:
    """Return -100 - 10 log10(x / 1e5) from 1e5 to 1e8, three vertices a decade."""
    x = np.geomspace(1e5, 1e8, 10)
    return Curve("figure3", "mnist", 3, n_train, "monte_carlo_em", split, PAPERS, x, -100.0 - 10.0 * np.log10(x / 1e5))


CURVES = tuple(papers(n, split) for n in readings.SIZES for split in ("train", "test"))


def fit(scale: float = 1.0, off: float = 0.0, pilot: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Return a run that is on the paper's curve, `off` nats above it, if its axis counts `scale` for each point."""
    rows = []
    for n_train in (1000, 50_000):
        for split in ("train", "test"):
            values = {n: -100.0 - 10.0 * float(np.log10(scale * n / 1e5)) + off for n in (1e5, 1e6, 1e7)}
            rows += run(values, **{**EM, "n_train": n_train, "split": split, **changes})
    return [{**one, "decoder_evals": pilot + EACH * one["n_seen"]} for one in rows]


def by_axis(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], readings.Reading]:
    found = readings.readings(frame(*rows), CURVES)
    return {(one.configuration.method, one.axis, one.n_train): one for one in found}


@pytest.mark.parametrize("pilot", [0, 10**6])
def test_each_axis_finds_the_run_that_was_made_for_it(pilot: int) -> None:
    """By points the first is 3 nats off; the second is on the curve by evaluations, whatever a pilot took before."""
    found = by_axis(fit(off=3.0) + fit(scale=EACH, pilot=pilot, method="e_step=full"))
    points, evals = found["", "n_seen", 1000], found["e_step=full", "decoder_evals", 50_000]
    assert points.distance == pytest.approx({"test": 3.0, "train": 3.0}) and points.vertices == {"test": 7, "train": 7}
    assert evals.distance == pytest.approx({"test": 0.0, "train": 0.0}, abs=1e-9)
    # 1.6e6 to 1.6e8 evaluations: the vertices from 10^6.33 to 10^8
    assert evals.vertices == {"test": 6, "train": 6}
    shift = 10.0 * np.log10(EACH)
    assert found["e_step=full", "n_seen", 1000].distance["test"] == pytest.approx(shift)


def test_the_nearest_is_named_at_each_size_and_over_both() -> None:
    rows = fit(off=3.0) + fit(scale=EACH, method="e_step=full") + fit(off=1.0, method="weight_updates=10")
    said = readings.sentences(readings.readings(frame(*rows), CURVES))
    assert said[0].startswith(
        "N = 1,000: of 6 readings that reach the paper's curves on both splits, the nearest is all chains"
    )
    assert "5 updates on numpyro, by decoder evaluations and quadrature: 0.0 nats" in said[0]
    assert (
        said[2].startswith("Over both N the nearest is all chains") and "it reproduces the paper's curves." in said[2]
    )
    worse = readings.sentences(readings.readings(frame(*fit(off=3.0)), CURVES))
    assert "3.0 at N = 1,000 and 3.0 at N = 50,000" in worse[2] and "it does not reproduce" in worse[2]


def test_a_run_that_does_not_reach_the_curve_has_no_distance() -> None:
    rows = [one for one in fit() if one["n_seen"] < 1e6]
    late = tuple(c._replace(n_seen=c.n_seen[6:], value=c.value[6:]) for c in CURVES)
    found = readings.readings(frame(*rows), late)
    assert all(np.isnan(one.distance["test"]) and one.vertices["test"] == 0 for one in found)
    assert readings.sentences(found) == ["No reading was run at both N as far as the paper's curves begin."]
    assert {line[0] for line in readings.table(found)} == {"-"}


def test_the_papers_estimator_judges_only_where_its_chains_are_kept() -> None:
    rows = fit(method="chains=kept") + fit(method="chains=kept", metric=PAPERS) + fit() + fit(metric=PAPERS, off=-50.0)
    found = readings.readings(frame(*rows), CURVES)
    assert {one.configuration.method for one in found if one.metric == PAPERS} == {"chains=kept"}


def test_the_table_tells_the_settings_apart() -> None:
    rows = fit(method="warmup=0 e_step=full weight_updates=20 step_size=0.02") + fit()
    found = readings.table(readings.readings(frame(*rows), CURVES))
    assert len(found[0]) == len(readings.HEAD)
    assert {tuple(line[3:6]) for line in found} == {("full", "20", "warmup=0 step_size=0.02"), ("minibatch", "5", "-")}


@pytest.mark.parametrize("axis", list(readings.AXES))
def test_a_drawing_names_each_run_by_what_is_its_own(axis: str) -> None:
    rows = fit(method="warmup=0 e_step=full") + fit(method="warmup=0") + fit(method="warmup=0", engine="pyro")
    text = readings.drawing(frame(*rows), CURVES, 1000, axis)
    ElementTree.fromstring(text)
    for label in (
        "full E-step, 5 updates, numpyro",
        "minibatch E-step, 5 updates, pyro",
        "the paper",
        readings.AXES[axis],
    ):
        assert label in text
    assert "warmup" not in text


def test_the_report_has_the_experiment_on_both_axes(tmp_path: Any) -> None:
    from comparisons.runner.rows import to_csv

    rows = fit(method="e_step=full")
    writing.write(tmp_path / "marginal_likelihood" / "rows.csv", to_csv(rows))
    writing.write(tmp_path / "marginal_likelihood" / "table.md", "")
    tried = {"attempt": "other rows", "metric": "elbo_nats", "split": "test", "points": "first", "n_points": 10}
    writing.write_rows(
        tmp_path / "attempts" / "rows.csv",
        [{"finding": "em_small", **tried, "n_seen": 1e6, "value": -1.0, "stderr": 0.0}],
    )
    assert report.main(["--out", str(tmp_path)]) == 0
    for axis in readings.AXES:
        assert (tmp_path / "figures" / f"appendix_e-1000-{axis}.svg").is_file()
        assert f"(figures/appendix_e-1000-{axis}.svg)" in (tmp_path / "README.md").read_text()
    page = (tmp_path / "index.html").read_text()
    assert 'id="appendix_e"' in page and 'id="attempts"' in page and ">other rows</td>" in page
    assert (
        page.index('id="changed"')
        < page.index('id="answer"')
        < page.index('id="appendix_d"')
        < page.index('id="attempts"')
    )
    assert "[Attempts to break the findings](attempts/table.md)" in (tmp_path / "README.md").read_text()
