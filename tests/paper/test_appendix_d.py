"""The paper's estimator against quadrature, stop by stop: errors and turns of known rows, by either reading of
chains."""

import math
from typing import Any

import pytest
from frames import FIGURE3, frame, run

from comparisons.paper import appendix_d

KEPT = "chains=kept"


def fit(truth: dict[float, float], papers: dict[float, float], **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of one fit by quadrature and by the paper's estimator, N = 1000, on test."""
    facts = {**FIGURE3, "n_train": 1000, "method": KEPT, **changes}
    facts.pop("metric")
    rows = run(truth, **facts, metric=appendix_d.TRUTH) + run(papers, **facts, metric=appendix_d.PAPERS)
    return [{**one, "cell": f"{facts.get('backend', 'aevb')} {facts.get('seed', 0)}"} for one in rows]


def test_the_error_is_taken_within_each_fit() -> None:
    """Seeds differ by 10 nats and the errors by 1: mean +0.5, standard error 0.5."""
    rows = fit({1e6: -150.0, 1e7: -140.0}, {1e6: -150.0, 1e7: -141.0})
    rows += fit({1e6: -160.0, 1e7: -150.0}, {1e6: -159.0, 1e7: -154.0}, seed=1)
    (one,) = appendix_d.contestants(frame(*rows), 1000, "test", kept=True)
    first, second = appendix_d.errors(one)
    assert (first.n_seen, first.value, first.seeds) == (10**6, 0.5, 2) and first.stderr == pytest.approx(0.5)
    assert (second.n_seen, second.value) == (10**7, -2.5)


def test_one_seed_has_the_error_of_both_estimators() -> None:
    (one,) = appendix_d.contestants(frame(*fit({1e6: -1.0}, {1e6: -3.0}, stderr=0.3)), 1000, "test", kept=True)
    (error,) = appendix_d.errors(one)
    assert error.value == -2.0 and error.stderr == pytest.approx(0.3 * math.sqrt(2)) and math.isnan(error.evals)


def test_kept_chains_are_never_mixed_with_others() -> None:
    rows = fit({1e6: -140.0}, {1e6: -140.2}) + fit({1e7: -140.0}, {1e7: -190.0}, method="")
    kept, anew = (appendix_d.contestants(frame(*rows), 1000, "test", kept=k)[0] for k in (True, False))
    assert appendix_d.errors(kept)[0].value == pytest.approx(-0.2)
    assert appendix_d.errors(anew)[0].value == -50.0
    head, body = appendix_d.table(frame(*rows), 1000, "test")
    assert [line[1] for line in body] == ["kept", "started anew"] and head[2:4] == ["1 million", "10 million"]
    assert [line[2] for line in body] == ["-0.20 ± 0.01", "-"]


def test_the_cost_of_the_chains_stands_beside_where_it_was_counted() -> None:
    facts = {**FIGURE3, "n_train": 1000, "method": KEPT}
    rows = fit({1e6: -140.0, 1e7: -139.0}, {1e6: -140.2, 1e7: -139.0})
    rows += run({1e6: 5e5, 1e7: 2.5e6}, **{**facts, "metric": appendix_d.EVALS})
    (one,) = appendix_d.contestants(frame(*rows), 1000, "test", kept=True)
    assert [error.evals for error in appendix_d.errors(one)] == [5e5, 2.5e6]
    head, (line,) = appendix_d.table(frame(*rows), 1000, "test")
    assert line[head.index("decoder evaluations of the chains")] == "2.5e+06"


def test_methods_and_both_e_steps_are_contestants_where_both_estimators_judged_them() -> None:
    rows = fit({1e6: -1.0}, {1e6: -1.0})
    for method in (KEPT, f"{KEPT} e_step=full"):
        rows += fit({1e6: -1.0}, {1e6: -1.0}, backend="monte_carlo_em", method=method)
    rows += [one for one in fit({1e6: -1.0}, {1e6: -1.0}, backend="wake_sleep") if one["metric"] == appendix_d.TRUTH]
    names = [one.name for one in appendix_d.contestants(frame(*rows), 1000, "test", kept=True)]
    assert names == ["AEVB", "Monte Carlo EM", "Monte Carlo EM, all chains moved"]


def test_what_is_not_small_is_named() -> None:
    """AEVB within 1 nat at one stop of two; Monte Carlo EM may be 3 nats off."""
    rows = fit({1e6: -140.0, 1e7: -140.0}, {1e6: -140.5, 1e7: -142.0})
    rows += fit({1e6: -140.0, 1e7: -140.0}, {1e6: -142.9, 1e7: -139.0}, backend="monte_carlo_em")
    (said,) = appendix_d.error_sentences(frame(*rows))
    assert said.startswith("With chains kept, the mean error of the paper's estimator lies between -2.9 and +1.0 nats")
    assert "at 3 of 4 stops. The others: AEVB, N = 1,000, test (1)." in said
    assert "The others" not in appendix_d.error_sentences(frame(*fit({1e6: -1.0}, {1e6: -1.0})))[0]


def test_a_seed_that_diverged_has_no_error_and_one_that_failed_is_missing() -> None:
    lost = [{**one, "value": math.nan, "status": "diverged"} for one in fit({1e6: -1.0}, {1e6: -1.0}, seed=1)]
    (one,) = appendix_d.contestants(frame(*fit({1e6: -1.0}, {1e6: -1.0}), *lost), 1000, "test", kept=True)
    assert math.isnan(appendix_d.errors(one)[0].value)
    assert "diverged" in appendix_d.table(frame(*fit({1e6: -1.0}, {1e6: -1.0}), *lost), 1000, "test")[1][0]
    failed = [
        {**one, "value": math.nan, "status": "failed", "n_seen": 0} for one in fit({1e6: -1.0}, {1e6: -1.0}, seed=1)
    ]
    (one,) = appendix_d.contestants(frame(*fit({1e6: -1.0}, {1e6: -1.5}), *failed), 1000, "test", kept=True)
    assert [(error.value, error.seeds) for error in appendix_d.errors(one)] == [(-0.5, 1)]


# Turns


def two(truth: tuple[float, float], papers: tuple[float, float], stderr: float = 0.5) -> list[appendix_d.Pair]:
    """Return the pairs of AEVB and wake-sleep with these values at a million points."""
    rows = fit({1e6: truth[0]}, {1e6: papers[0]}, stderr=stderr)
    rows += fit({1e6: truth[1]}, {1e6: papers[1]}, stderr=stderr, backend="wake_sleep")
    return list(appendix_d.pairs(frame(*rows)))


@pytest.mark.parametrize(
    ("truth", "papers", "decided", "turned"),
    [
        ((-140.0, -145.0), (-141.0, -146.0), True, False),
        ((-140.0, -145.0), (-150.0, -146.0), True, True),
        ((-145.0, -140.0), (-146.0, -150.0), True, True),
        # two standard errors of a difference are 2 sqrt(0.5) = 1.41: closer than that is no order
        ((-140.0, -141.3), (-150.0, -146.0), False, False),
        ((-140.0, -145.0), (-147.3, -146.0), False, False),
        ((-140.0, -141.5), (-147.5, -146.0), True, True),
    ],
)
def test_a_pair_turns_where_both_tell_it_apart_and_disagree(
    truth: tuple[float, float], papers: tuple[float, float], decided: bool, turned: bool
) -> None:
    (pair,) = two(truth, papers)
    assert (pair.decided, pair.turned, pair.names) == (decided, turned, ("AEVB", "wake-sleep"))
    assert pair.truth == pytest.approx(truth[0] - truth[1]) and pair.truth_stderr == pytest.approx(math.sqrt(0.5))
    assert pair.estimate == pytest.approx(papers[0] - papers[1])


def test_over_seeds_the_error_is_that_of_the_seeds() -> None:
    """Quadrature: -140 and -150 against -146 and -146. Mean 1 apart, standard error 5: undecided, whatever else."""
    rows = fit({1e6: -140.0}, {1e6: -150.0}) + fit({1e6: -150.0}, {1e6: -150.0}, seed=1)
    rows += fit({1e6: -146.0}, {1e6: -140.0}, backend="wake_sleep") + fit(
        {1e6: -146.0}, {1e6: -140.0}, seed=1, backend="wake_sleep"
    )
    (pair,) = appendix_d.pairs(frame(*rows))
    assert pair.truth == 1.0 and pair.truth_stderr == pytest.approx(5.0) and not pair.decided and not pair.turned


def test_turns_are_counted_by_reading_size_split_and_stop() -> None:
    def both(method: str, papers: float) -> list[dict[str, Any]]:
        stops = {1e6: -140.0, 1e7: -138.0}
        rows = fit(stops, {1e6: papers, 1e7: -138.0}, method=method)
        return rows + fit({1e6: -145.0, 1e7: -144.0}, {1e6: -145.0, 1e7: -144.0}, method=method, backend="wake_sleep")

    rows = frame(*both(KEPT, -140.2), *both("", -170.0))
    lines = {(line[0], line[3]): line for line in appendix_d.turned_table(rows)}
    assert [line[4:7] for line in lines.values()] == [
        ["1", "1", "0"],
        ["1", "1", "0"],
        ["1", "1", "1"],
        ["1", "1", "0"],
    ]
    assert lines["kept", "1 million"][7] == "-"
    kept, anew = appendix_d.turn_sentences(rows)
    assert "turns none of the 2 pairs" in kept and "turns 1 of the 2 pairs" in anew
    (line,) = appendix_d.turned_table(
        frame(*fit({1e6: -1.0}, {1e6: -9.0}), *fit({1e6: -5.0}, {1e6: -5.0}, backend="wake_sleep"))
    )
    assert line[7] == "AEVB - wake-sleep: +4.00 ± 0.01, estimated -4.00 ± 0.01"


def test_what_diverged_or_is_contradicted_makes_no_pair() -> None:
    other = fit({1e6: -145.0}, {1e6: -145.0}, backend="wake_sleep")
    for change in ({"value": math.nan, "status": "diverged"}, {"status": "contradicted"}):
        rows = [{**one, **change} for one in fit({1e6: -140.0}, {1e6: -150.0})]
        assert list(appendix_d.pairs(frame(*rows, *other))) == []
