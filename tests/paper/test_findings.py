"""No result is typed by hand: a sentence's numbers are the rows', and its verb is the comparison's."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from frames import FIGURE2, FIGURE3, NONE, frame, run

from comparisons.paper import corrections, findings
from comparisons.paper.found import Found, Rows, read
from comparisons.paper.runs import Point
from comparisons.paper.words import relation
from comparisons.reporting import markdown

ROOT = Path(__file__).parents[2]
EMPTY = pd.DataFrame()


@pytest.fixture(scope="module")
def found() -> Found:
    """What lies in reports/."""
    return read(ROOT / "reports")


def rows3(*rows: dict[str, Any]) -> Rows:
    return Rows(NONE, frame(*rows), *[EMPTY] * 6)


def small(values: dict[float, float], **changes: Any) -> list[dict[str, Any]]:
    return run(values, **{**FIGURE3, "n_train": 1000, **changes})


# Sentences


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (-140.0, -145.0, "5.0 nats above B"),
        (-145.0, -140.0, "5.0 nats below B"),
        (-140.0, -142.7, "within two standard errors of B"),  # the error of the difference is 1.41
        (float("nan"), -140.0, "diverged"),
        (-140.0, float("nan"), "not to be compared with B, which diverged"),
    ],
)
def test_the_verb_is_the_comparisons(one: float, other: float, words: str) -> None:
    assert relation(Point(1, one, 1.0, 1.0, 1), Point(1, other, 1.0, 1.0, 1), "B") == words


@pytest.mark.parametrize("finding", [*findings.FIGURE2, *findings.FIGURE3, *findings.OTHERS.values()])
def test_without_rows_nothing_is_said(finding: findings.Finding) -> None:
    assert finding(Rows(NONE, NONE, *[EMPTY] * 6)) == []


def test_methods_are_ranked_by_their_values_and_not_by_their_names() -> None:
    backends = {"aevb": -145.0, "wake_sleep": -140.0, "monte_carlo_em": -140.02}
    rows = rows3(*(one for b, value in backends.items() for one in small({1e6: value}, backend=b)))
    (said,) = findings.ranking(rows)
    assert said == (
        "N = 1,000, log p(x) on test by quadrature at 1 million points, one seed each: wake-sleep -140.0; Monte Carlo "
        "EM -140.0, within two standard errors of wake-sleep; AEVB -145.0, 5.0 nats below wake-sleep."
    )


def test_the_full_e_step_is_said_to_fall_only_where_it_falls() -> None:
    full = {"backend": "monte_carlo_em", "method": "e_step=full"}
    rivals = small({1e6: -145.0, 1e7: -143.0}, backend="aevb")
    (rises,) = findings.full_e_step(rows3(*small({1e6: -142.0, 1e7: -139.0}, **full), *rivals))
    assert "-139.0 on test after 10 million points, 4.0 nats above AEVB; it was never higher" in rises
    assert "The paper's curve is at -142.3 there." in rises
    (falls,) = findings.full_e_step(rows3(*small({1e6: -139.0, 1e7: -142.0}, **full), *rivals))
    assert "1.0 nats above AEVB; its best was -139.0, after 1 million." in falls


def test_work_is_compared_without_the_pilots_evaluations() -> None:
    """AEVB: one evaluation a point. Monte Carlo EM: sixteen, after a pilot of a million; -150 + 10 log10(n / 1e5)."""
    em = small({1e5: -150.0, 1e6: -140.0, 1e7: -130.0}, backend="monte_carlo_em")
    em = [{**one, "decoder_evals": 1_000_000 + 16 * one["n_seen"], "seconds": one["n_seen"] / 1e5} for one in em]
    aevb = small({1e5: -160.0, 1e6: -150.0, 1e7: -141.0}, backend="aevb")
    aevb = [{**one, "decoder_evals": one["n_seen"], "seconds": one["n_seen"] / 1e6} for one in aevb]
    (said,) = findings.work(rows3(*em, *aevb))
    # after 1e7 evaluations it has seen 1e7 / 16 points: -150 + 10 (2 - log10 16) = -142.04; after 10 seconds 1e6
    assert "takes 16.0 times the decoder evaluations, and after AEVB's it is at about -142.0 on test" in said
    assert "10.0 times the seconds, and after AEVB's it is at about -140.0 on test. AEVB is at -141.0" in said


def test_overfitting_is_told_from_the_bound_and_its_best() -> None:
    def both(bound: dict[float, float], split: str) -> list[dict[str, Any]]:
        truth = small(dict.fromkeys(bound, -140.0), backend="aevb", split=split)
        return truth + small(bound, backend="aevb", split=split, metric="elbo_nats")

    rows = both({1e6: -141.0, 1e7: -141.0}, "train") + both({1e6: -150.0, 1e7: -190.0}, "test")
    (said,) = findings.overfitting(rows3(*rows))
    assert "1.0 nats below log p(x) on train and 50.0 on test. It was best after 1 million points, at -150.0." in said


def test_the_spread_names_the_settings_at_its_ends() -> None:
    rows = [*run({1e6: -150.0}), *run({1e6: -170.0}, method="warmup=0"), *run({1e6: -160.0}, method="theta=ml")]
    (said,) = findings.spread("figure2")(Rows(frame(*rows), NONE, *[EMPTY] * 6))
    assert said == (
        "MNIST, 3 latent variables, AEVB on test at 1 million points, 3 settings: from -170.0 (warmup=0, numpyro, "
        "step size 0.02) to -150.0 (defaults, numpyro, step size 0.02); the paper has -153.0."
    )
    near = frame(*rows[:1], *run({1e6: -151.0}, method="warmup=0"))
    assert findings.spread("figure2")(Rows(near, NONE, *[EMPTY] * 6)) == []


def test_nothing_is_concluded_from_a_contradicted_number() -> None:
    rows = small({1e7: -140.0}, status="contradicted")
    assert findings.ranking(rows3(*rows, *small({1e7: -150.0}, backend="wake_sleep"))) == []


# What an earlier version had wrong


def test_withdrawn_sentences_are_quotations() -> None:
    import subprocess

    def earlier(path: str) -> str:
        told = subprocess.run(
            ["git", "show", f"{corrections.EARLIER}:{path}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if told.returncode:
            pytest.skip("this checkout has no history: fetch it whole")
        return " ".join(told.stdout.split())

    before = earlier("README.md")
    for one in corrections.CORRECTIONS:
        for said in one.withdrawn:
            assert said in before, said
    assert "| -148.7 ± 0.3 |" in before and "Monte Carlo EM -148.8, AEVB" in earlier("reports/README.md")


def section(rows: Rows, manifests: dict[str, Any]) -> str:
    return markdown.page(corrections.blocks(Found(rows, {"figure3": manifests}, [], [], {}, {}, {})))


def test_what_holds_now_is_told_by_mended_rows_alone() -> None:
    full = small({1e6: -147.0}, backend="monte_carlo_em", method="e_step=full")
    rows, cell = rows3(*full), str(full[0]["cell"])
    assert corrections.full_e_step(rows, {}) == [] == corrections.full_e_step(rows, {cell: {"numbers_version": 2}})
    (said,) = corrections.full_e_step(rows, {cell: {"numbers_version": 3}})
    assert "-147.0 on test after 1 million points" in said
    assert corrections.AGAIN in section(rows, {})
    text = section(rows, {cell: {"numbers_version": 3}})
    assert said in text and text.count(corrections.AGAIN) == len(corrections.CORRECTIONS) - 1
    assert section(rows3(), {}).count(corrections.AGAIN) == len(corrections.CORRECTIONS)


def test_quadrature_says_what_moved_when_it_judge_again() -> None:
    assert corrections.quadrature(rows3(), {}) == []
    again = pd.DataFrame({"moved": [0.0, -0.0002, 0.0001], "again": [0.0, 0.02, 0.01], "flagged": [0.0, 0.001, 0.0]})
    (said,) = corrections.quadrature(rows3()._replace(judge_again=again), {})
    assert "3 means of kept fits, 2 moved, by at most 0.0002 nats" in said
    assert "integrated again were at most 2.0%" in said and "flagged at most 0.1%" in said


def test_figure2_findings_count_what_is_ahead() -> None:
    rows = run({1e5: -130.0, 1e6: -120.0}) + run({1e5: -125.0, 1e6: -125.0}, backend="wake_sleep")
    rows2 = Rows(frame(*rows), NONE, *[EMPTY] * 6)
    assert "at the end of 1 of the 1 panels of Figure 2, and at 1 of their 2 stops" in findings.ahead(rows2)[0]
    frey = {
        **FIGURE2,
        "data": "frey",
        "n_train": 1600,
        "n_hidden": 200,
        "model": "vae_gaussian",
        "backend": "wake_sleep",
    }
    stays = run({1e5: 579.0, 1e6: 580.0}, **frey, n_latent=2) + run({1e5: 577.0, 1e6: 700.0}, **frey, n_latent=20)
    first, second = findings.plateau(Rows(frame(*stays), NONE, *[EMPTY] * 6))
    assert "stays there" in first and "is more than 29 nats above that from 1 million points on" in second


def test_what_attempts_say_of_withdrawn_findings() -> None:
    """The last stop of each run, on the first test points, beside the paper's curve or beside each other."""
    told = {"split": "test", "points": "first", "stderr": 0.1}
    attempts = pd.DataFrame(
        [
            {**told, "finding": "frey", "attempt": name, "metric": "elbo_nats", "n_seen": n, "value": value}
            for name, n, value in (
                ("minibatches of 500", 500_000, 677.0),
                ("minibatches of 500", 1_000_000, 800.0),
                ("minibatches of 500, 2 latent variables", 1_000_000, 686.0),
                ("plain", 1_000_000, 988.0),
                ("minibatches of 500, ten million points", 10_000_000, 1133.0),
            )
        ]
        + [
            {
                **told,
                "finding": "em_large",
                "attempt": name,
                "metric": "log_px_plain_nats",
                "n_seen": 500_000,
                "value": value,
            }
            for name, value in (("plain AEVB", -146.5), ("seed 1", -156.5))
        ]
    )
    rows = rows3()._replace(attempts=attempts)
    two, ten, later = corrections.frey_face(rows, {})
    assert "with 2 latent variables: 686 on test after 1 million points, the paper's curve at 673" in two
    assert "with 10 latent variables: 800 on test after 1 million points, the paper's curve at 792" in ten
    assert "with 10 latent variables: 1133 on test after 10 million points, the paper's curve at 1172" in later
    said, *ranked = corrections.one_seed(rows, {})
    assert "500,000 points: plain AEVB -146.5, seed 1 -156.5" in said
    assert all(sentence.startswith("N = 50,000, log p(x) on test by quadrature") for sentence in ranked)
    assert corrections.frey_face(rows3(), {}) == corrections.one_seed(rows3(), {}) == []
