"""An estimate against the truth: every score worked out by hand on estimates that were made for it."""

from collections.abc import Sequence

import numpy as np
import pytest

from comparisons.benchmarks import scoring
from comparisons.benchmarks.scoring import Judged, measured, scored
from comparisons.evidence.base import Estimate


def judged(error: Sequence[float] | np.ndarray, stderr: float = 0.1, flagged: Sequence[bool] | None = None) -> Judged:
    """An estimate that lies so far from the truth of -10, with this word of its own."""
    errors = np.asarray(error, np.float64)
    doubt = None if flagged is None else {"flagged": np.asarray(flagged, bool)}
    return Judged(Estimate(-10.0 + errors, np.full(len(errors), stderr), False, doubt), 2.0, 5e6)


def truth(n: int) -> np.ndarray:
    return np.full(n, -10.0)


def test_scores_are_those_worked_out_by_hand() -> None:
    row = scored(judged([0.0, 0.1, -0.2, 0.7], stderr=0.15, flagged=[False, False, True, True]), truth(4))
    assert row["n_points"] == 4 and row["repeats"] == 1 and row["unknown"] == 0
    assert row["bias"] == pytest.approx(0.15) and row["median"] == pytest.approx(0.05)
    assert row["bias_trusted"] == pytest.approx(0.05)  # of the first two
    assert row["sd"] == pytest.approx(np.std([0.0, 0.1, -0.2, 0.7], ddof=1))
    assert row["bias_stderr"] == pytest.approx(row["sd"] / 2)
    assert row["rmse"] == pytest.approx(np.sqrt((0.01 + 0.04 + 0.49) / 4))
    assert row["coverage"] == 0.75 and row["flagged"] == 0.5  # 0.7 is beyond 1.96 x 0.15
    assert row["bad"] == 0.25 and row["bad_flagged"] == 1.0
    assert row["estimate"] == pytest.approx(-9.85) and row["stderr"] == pytest.approx(0.15)
    assert row["seconds_per_1000"] == 500.0 and row["peak_megabytes"] == 5.0


def test_an_exact_estimate_has_no_error() -> None:
    row = scored(judged(np.zeros(6), stderr=0.0), truth(6), repeats=3)
    assert [row[name] for name in ("bias", "sd", "rmse", "bad", "flagged")] == [0.0] * 5
    assert row["coverage"] == 1.0 and np.isnan(row["bad_flagged"])


def test_the_spread_over_repeats_is_within_a_datapoint() -> None:
    """Two points, three repeats of both: that the points are wrong by different amounts is no spread."""
    row = scored(judged([1.0, 5.0, 1.1, 5.2, 0.9, 4.8]), truth(6), repeats=3)
    assert row["sd"] == pytest.approx((0.1 + 0.2) / 2)
    assert scored(judged([1.0, 5.0, 1.1, 5.2, 0.9, 4.8]), truth(6))["sd"] > 2


def test_the_truths_own_error_widens_what_covers() -> None:
    both = judged([0.3, 0.3], stderr=0.1), truth(2)
    assert scored(*both)["coverage"] == 0.0
    assert scored(*both, truth_error=np.array([0.0, 0.2]))["coverage"] == 0.5


def test_what_no_truth_is_known_of_judges_nobody() -> None:
    partly = np.array([-10.0, np.nan, -10.0, np.nan])
    row = scored(judged([0.1, 99.0, 0.3, -99.0], flagged=[True, False, False, False]), partly)
    assert row["n_points"] == 2 and row["unknown"] == 0.5
    assert row["bias"] == pytest.approx(0.2) and row["flagged"] == 0.5 and row["bad"] == 0
    assert row["seconds_per_1000"] == 500.0  # of all four, for all were judged


def test_without_any_truth_there_is_a_word_of_its_own_alone() -> None:
    row = scored(judged([0.1, 0.3], flagged=[True, False]), np.full(2, np.nan))
    assert row["unknown"] == 1.0 and row["flagged"] == 0.5 and row["estimate"] == pytest.approx(-9.8)
    for name in ("bias", "rmse", "coverage", "bad", "bad_flagged"):
        assert np.isnan(row[name]), name


def test_an_estimate_that_is_no_number_is_not_covered_by_silence() -> None:
    row = scored(judged([0.1, np.nan]), truth(2))
    assert np.isnan(row["bias"]) and np.isnan(row["coverage"]) and np.isnan(row["bad"])


@pytest.mark.parametrize(("seconds", "runs"), [(1.0, 2), (scoring.LONG + 1, 1)])
def test_what_is_short_is_run_again_without_compilation(
    seconds: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def perf_counter(cls) -> float:
            return cls.now

    ran: list[int] = []

    def run() -> Estimate:
        Clock.now += seconds + 5.0 * (not ran)  # of compilation
        ran.append(len(ran))
        return Estimate(np.array([float(len(ran))]), np.zeros(1))

    monkeypatch.setattr(scoring, "time", Clock)
    found = measured(run)
    assert len(ran) == runs and found.estimate.value == [runs]
    assert found.seconds == seconds + 5.0 * (runs == 1)
