"""Verdicts: which run stands for a curve, what is said of it, and what the paper's claims are worth."""

import math
from typing import Any

import numpy as np
import pytest
from frames import FIGURE3, NONE, curve, frame, run

from comparisons.paper import runs, verdicts
from comparisons.paper.curves import Curve, curves
from comparisons.paper.runs import Configuration
from comparisons.paper.verdicts import Claim, Verdict


def verdict(rows: list[dict[str, Any]], one: Curve | None = None) -> list[Verdict]:
    return verdicts.verdicts(frame(*rows), NONE, [one or curve()])


# The main configuration


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ([("", 10**6), ("theta=ml", 10**7)], ""),
        ([("theta=ml", 10**7)], None),
        ([("e_step=full", 10**7), ("", 10**6)], ""),
        ([("", 10**6), ("warmup=0 step_size=0.02", 10**6)], ""),
        ([("", 10**6), ("warmup=0 step_size=0.02", 10**7)], "warmup=0 step_size=0.02"),
        ([("step_size=0.01", 10**6), ("warmup=0 step_size=0.02", 10**6)], "step_size=0.01"),
        ([("step_size=0.02", 10**6), ("warmup=auto", 10**6)], "warmup=auto"),
        ([("", 10**6), ("warmup=auto", 10**6)], "warmup=auto"),
        ([("", 10**7), ("warmup=auto", 10**6)], ""),
        ([("warmup=0", 10**7), ("warmup=0 pilot_steps=3000", 10**7)], "warmup=0 pilot_steps=3000"),
        ([("warmup=0 step_size=0.02", 10**7), ("warmup=0 pilot_steps=3000", 10**7)], "warmup=0 pilot_steps=3000"),
        ([("", 10**6), ("tolerance=0.03", 10**7)], "tolerance=0.03"),
        ([("backend_sha256=0123", 10**7)], None),
    ],
)
def test_the_longest_run_of_the_papers_method_stands_for_it(
    methods: list[tuple[str, int]], expected: str | None
) -> None:
    found = [Configuration(method, "numpyro", samples) for method, samples in methods]
    for order in (found, found[::-1]):
        chosen = runs.main(order)
        assert (chosen.method if chosen else None) == expected


def test_numpyro_comes_before_pyro_and_length_before_both() -> None:
    pyro, numpyro = (Configuration("", engine, 10**6) for engine in ("pyro", "numpyro"))
    assert runs.main([pyro, numpyro]) == numpyro
    assert runs.main([pyro._replace(samples=10**7), numpyro]) == pyro._replace(samples=10**7)


def test_a_tolerated_setting_is_asked_for() -> None:
    found = [Configuration("", "numpyro", 10**7), Configuration("e_step=full", "numpyro", 10**6)]
    chosen = runs.main(found, ("e_step=full",))
    assert chosen and chosen.method == "e_step=full"
    assert runs.main(found[:1], ("e_step=full",)) is None


# Verdicts


@pytest.mark.parametrize(
    ("value", "word"),
    [(-110.0, "reproduced"), (-112.0, "reproduced"), (-112.1, "below the paper"), (-107.9, "above the paper")],
)
def test_mnist_is_reproduced_within_two_nats(value: float, word: str) -> None:
    first, second = verdict(run({1e6: value}))
    assert (first.at, first.word) == ("1e6", word) and first.paper == pytest.approx(-110)
    assert first.difference == pytest.approx(value + 110)
    assert (second.at, second.word, second.point) == ("1e7", "not run", None)


@pytest.mark.parametrize(
    ("value", "word"), [(104.9, "reproduced"), (105.1, "above the paper"), (94.9, "below the paper")]
)
def test_frey_face_is_reproduced_within_five_per_cent(value: float, word: str) -> None:
    flat = curve(data="frey", n_train=1600, value=np.array([100.0, 100.0]))
    rows = run({1e6: value}, data="frey", n_train=1600, n_hidden=200, model="vae_gaussian")
    assert verdict(rows, flat)[0].word == word


def test_the_end_of_the_run_is_a_point_of_its_own() -> None:
    found = verdict(run({1e6: -110.0, 1e7: -120.0, 5e7: -127.0}))
    assert [(v.at, v.n_seen, v.word) for v in found] == [
        ("1e6", 10**6, "reproduced"),
        ("1e7", 10**7, "reproduced"),
        ("end", 5 * 10**7, "reproduced"),
    ]
    assert [v.at for v in verdict(run({1e6: -110.0, 1e7: -120.0}))] == ["1e6", "1e7"]


def test_seeds_scatter_by_their_standard_deviation() -> None:
    rows = [one for seed, v in enumerate((-109.0, -110.0, -114.0)) for one in run({1e6: v}, seed=seed)]
    point = verdict(rows)[0].point
    assert point and (point.value, point.seeds) == (-111, 3)
    assert point.error == pytest.approx(math.sqrt(7)) and point.stderr == pytest.approx(math.sqrt(7 / 3))


def test_one_seed_has_the_estimators_error() -> None:
    point = verdict(run({1e6: -110.0}, stderr=0.25))[0].point
    assert point and (point.error, point.stderr, point.seeds) == (0.25, 0.25, 1)


def test_a_seed_that_diverged_takes_the_mean_with_it_from_there_on() -> None:
    rows = run({1e6: -110.0, 1e7: -120.0}) + run({1e6: -110.0, 1e7: math.nan}, seed=1)
    rows[-1]["status"] = "diverged"
    first, second = verdict(rows)
    assert first.word == "reproduced"
    assert (
        second.word == "below the paper" and second.point and math.isnan(second.point.value) and second.point.seeds == 2
    )


def test_a_run_that_failed_is_not_run() -> None:
    (lost,) = run({1e6: math.nan}, status="failed")
    assert {v.word for v in verdict([lost])} == {"not run"}
    assert verdict([lost, *run({1e6: -110.0}, seed=1)])[0].word == "reproduced"


def test_what_the_paper_does_not_show_is_not_judged() -> None:
    (found, _) = verdict(run({1e6: -110.0}), curve(n_seen=np.array([2e6, 1e8])))
    assert found.word == "no curve" and math.isnan(found.paper)


def test_other_sizes_models_and_splits_do_not_count() -> None:
    for other in ({"n_hidden": 100}, {"n_train": 1000}, {"n_latent": 5}, {"model": "a.py:B"}, {"split": "train"}):
        assert {v.word for v in verdict(run({1e6: -110.0}, **other))} == {"not run"}, other


def test_figure_3_is_held_against_the_truth_and_against_the_papers_estimator() -> None:
    one = curve(figure="figure3", metric="log_px_appendix_d_nats")
    rows = run({1e6: -105.0}, **FIGURE3) + run({1e6: -111.0}, **{**FIGURE3, "metric": "log_px_appendix_d_nats"})
    found = verdicts.verdicts(NONE, frame(*rows), [one])
    assert [(v.metric, v.word) for v in found if v.at == "1e6"] == [
        ("log_px_quadrature_nats", "above the paper"),
        ("log_px_appendix_d_nats", "reproduced"),
    ]


def test_with_no_rows_nothing_was_run() -> None:
    found = verdicts.verdicts(NONE, NONE, curves())
    assert {v.word for v in found} == {"not run"} and len(found) == 2 * (24 + 2 * 12)
    assert {claim.word for claim in verdicts.claims(NONE, NONE)} == {"not run"}


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = frame(*run({1e6: -110.0, 1e7: -119.0}), *run({1e6: -111.0}, seed=1), *run({1e6: -99.0}, method="theta=ml"))
    shuffled = rows.sample(frac=1, random_state=1)
    assert str(verdicts.verdicts(rows, NONE, [curve()])) == str(verdicts.verdicts(shuffled, NONE, [curve()]))
    assert verdicts.claims(rows, NONE) == verdicts.claims(shuffled, NONE)


# Claims


def claim(number: int, figure2: list[dict[str, Any]], figure3: list[dict[str, Any]]) -> Claim:
    return verdicts.claims(frame(*figure2), frame(*figure3))[number]


@pytest.mark.parametrize(
    ("aevb", "wake_sleep", "word"),
    [
        ({1e6: -110.0, 1e7: -100.0}, {1e6: -120.0, 1e7: -115.0}, "holds"),
        ({1e6: -130.0, 1e7: -116.0}, {1e6: -120.0, 1e7: -115.0}, "does not hold"),
        ({1e6: -130.0, 1e7: -115.0}, {1e6: -120.0, 1e7: -115.01}, "does not hold"),
        ({1e6: -130.0, 1e7: math.nan}, {1e6: -120.0, 1e7: -115.0}, "does not hold"),
        ({1e6: -130.0}, {1e7: -115.0}, "not run"),
    ],
)
def test_aevb_against_wake_sleep(aevb: dict[float, float], wake_sleep: dict[float, float], word: str) -> None:
    found = claim(0, run(aevb) + run(wake_sleep, backend="wake_sleep"), [])
    assert found.word == word and len(found.evidence) == (word != "not run")


def test_panels_that_disagree_are_mixed() -> None:
    rows = run({1e6: -1.0}) + run({1e6: -2.0}, backend="wake_sleep")
    rows += run({1e6: -2.0}, n_latent=5) + run({1e6: -1.0}, n_latent=5, backend="wake_sleep")
    assert claim(0, rows, []).word == "mixed"


@pytest.mark.parametrize(
    ("train", "test", "word"),
    [(-90.0, -105.0, "does not hold"), (-90.0, -95.0, "holds"), (-110.0, -115.0, "holds"), (-90.0, -100.02, "holds")],
)
def test_more_latent_variables_overfit_where_train_rises_and_test_falls(train: float, test: float, word: str) -> None:
    rows = run({1e6: -100.0}) + run({1e6: -100.0}, split="train")
    rows += run({1e6: test}, n_latent=20) + run({1e6: train}, n_latent=20, split="train")
    assert claim(1, rows, []).word == word
    assert claim(1, rows[:2], []).word == "not run"


def test_monte_carlo_em_at_1000_points_by_either_estimator() -> None:
    def three(em: float, aevb: float, metric: str) -> list[dict[str, Any]]:
        values = {"monte_carlo_em": em, "aevb": aevb, "wake_sleep": -150.0}
        small = {**FIGURE3, "n_train": 1000, "metric": metric}
        return [one for b, value in values.items() for one in run({1e6: value}, **{**small, "backend": b})]

    truth = three(-140.0, -145.0, runs.TRUTH)
    assert claim(2, [], truth).word == "holds"
    both = claim(2, [], truth + three(-190.0, -150.0, runs.PAPERS))
    assert both.word == "mixed" and "quadrature" in both.evidence[0] and "paper's estimator" in both.evidence[1]
    assert claim(2, [], three(-146.0, -145.0, runs.TRUTH)).word == "does not hold"
    small = {**FIGURE3, "n_train": 1000, "backend": "monte_carlo_em", "method": "e_step=full"}
    full = claim(2, [], truth + run({1e5: -147.0, 1e6: -149.0}, **small))
    assert full.word == "mixed" and "-149.0; its best is -147.0, after 100,000 points" in full.evidence[1]


def test_monte_carlo_em_at_50000_points_with_either_e_step() -> None:
    aevb = run({1e6: -140.0}, **FIGURE3)
    chains = run({1e6: -135.0}, **FIGURE3, backend="monte_carlo_em")
    full = run({1e6: -160.0}, **FIGURE3, backend="monte_carlo_em", method="e_step=full")
    assert claim(3, [], aevb + chains).word == "does not hold"
    found = claim(3, [], aevb + chains + full)
    assert found.word == "mixed" and "full E-step, not the method" in found.evidence[-1]
    assert claim(3, [], aevb + full).word == "holds"
    assert claim(3, [], aevb).word == "not run"
    level = run({1e6: -140.01}, **FIGURE3, backend="monte_carlo_em")
    found = claim(3, [], aevb + level)
    assert found.word == "mixed" and "within two standard errors" in found.evidence[0]


def test_evidence_names_its_numbers() -> None:
    found = claim(0, run({1e6: -110.0}) + run({1e6: -120.0}, backend="wake_sleep"), [])
    assert "at 1 million points AEVB is at -110.0 on test, wake-sleep at -120.0" in found.evidence[0]


def test_seeds_of_one_fit_are_averaged_whatever_chains_the_papers_estimator_had() -> None:
    """Quadrature does not ask; the paper's estimator itself keeps the two apart."""
    rows = [
        one
        for metric in (runs.TRUTH, runs.PAPERS)
        for method, seed, value in (("warmup=0 chains=kept", 0, -140.0), ("warmup=0", 1, -142.0))
        for one in run({1e6: value}, **{**FIGURE3, "metric": metric}, backend="aevb", method=method, seed=seed)
    ]
    part = runs.panel(frame(*rows), "figure3", "mnist", 3, 50_000)
    (quadrature,) = runs.curve_of(part, "aevb", "test", runs.TRUTH).values()
    (papers,) = runs.curve_of(part, "aevb", "test", runs.PAPERS).values()
    assert (quadrature.value, quadrature.seeds) == (-141.0, 2) and (papers.value, papers.seeds) == (-140.0, 1)
