"""Who leads: differences on the same seeds, what they are worth, and the cost of coming near."""

import math

import numpy as np
import pytest
from frames import frame, row, table_of

from comparisons.reporting import standings, tables, terminal
from comparisons.runner.baselines import Baselines

TEST = {"split": "test"}


def runs(backend: str, values: list[float], **changes: object) -> list[dict[str, object]]:
    return [row(backend=backend, seed=seed, value=value, **TEST, **changes) for seed, value in enumerate(values)]


def test_methods_are_compared_on_the_same_seeds() -> None:
    """Seeds that scatter by nats leave a difference that is told to hundredths."""
    scatter = [-30.0, -20.0, -25.0]
    lower = [v - d for v, d in zip(scatter, (0.2, 0.3, 0.4), strict=True)]
    rows = frame(*runs("aevb", scatter), *runs("mean_field", lower))
    best, other = tables.summary(rows).sort_values("backend").itertuples()
    assert (best.to_best, best.shared_seeds) == (0.0, 3)
    assert other.to_best == pytest.approx(-0.3, abs=1e-12)
    assert other.to_best_stderr == pytest.approx(0.1 / math.sqrt(3), rel=1e-9)
    assert other.lower_bound_test_stderr > 2.0
    text = table_of(rows)
    assert "| best |" in text and "| -0.30 ± 0.06 * |" in text
    assert "aevb on pyro leads by the lower bound on test, 0.30 ± 0.06 nats above mean_field on pyro." in text


def test_seeds_that_one_method_lacks_count_for_no_difference() -> None:
    rows = frame(*runs("aevb", [-1.0, -2.0]), *runs("mean_field", [-2.0, -3.5, -90.0]))
    found = standings.standings(rows).set_index("backend")
    assert found.loc["mean_field", ["to_best", "shared_seeds"]].tolist() == [-1.25, 2]


def test_what_cannot_be_told_from_the_best_is_said_to_be_level() -> None:
    rows = frame(*runs("aevb", [-1.0, -2.0, -1.5]), *runs("mean_field", [-2.0, -1.5, -1.6]))
    text = table_of(rows)
    assert "aevb on pyro leads by the lower bound on test, and cannot be told from mean_field on pyro." in text
    assert "*" not in text.replace("where * marks", "")


def test_one_seed_is_no_comparison_with_an_error() -> None:
    text = terminal.plain(frame(*runs("aevb", [-1.0]), *runs("mean_field", [-2.0])))
    assert "1.00 nats above mean_field on pyro, with 1 seed." in " ".join(text.split()) and "no ±" in text
    assert "*" not in text.replace("; * is", "")


def test_log_px_comes_before_the_bound_and_what_has_none_is_not_held_against_it() -> None:
    judged = runs("aevb", [-5.0], metric="log_px_quadrature_nats")
    found = standings.standings(frame(*judged, *runs("aevb", [-9.0]), *runs("mean_field", [-1.0])))
    assert found.backend.tolist() == ["aevb"]


@pytest.mark.parametrize("status", ["diverged", "contradicted", "failed"])
def test_what_is_not_sound_leads_nothing(status: str) -> None:
    lost = {"value": math.nan, "stderr": math.nan} if status != "contradicted" else {"value": -0.1}
    rows = frame(*runs("aevb", [-5.0]), row(backend="mean_field", **TEST, **lost, status=status))
    assert standings.standings(rows).backend.tolist() == ["aevb"]
    assert standings.standings(rows[rows.status != "ok"]).empty


def test_the_cost_is_that_of_the_first_stop_within_a_nat_of_the_best_end() -> None:
    slow = [(10, -8.0, 1.0, 5), (20, -5.9, 2.0, 10), (30, -5.5, 3.0, 15)]
    fast = [(10, -5.8, 0.5, 50), (20, -5.0, 1.0, 100), (30, -5.0, 1.5, 150)]
    far = [(10, -9.0, 0.1, 1), (20, -8.0, 0.2, 2), (30, -7.0, 0.3, 3)]
    rows = [
        row(backend=name, n_seen=n, value=value, seconds=seconds, decoder_evals=evals, **TEST)
        for name, stops in (("aevb", slow), ("mean_field", fast), ("wake_sleep", far))
        for n, value, seconds, evals in stops
    ]
    found = standings.standings(frame(*rows)).set_index("backend")
    assert found.near_seconds.tolist()[:2] == [2.0, 0.5] and math.isnan(found.near_seconds["wake_sleep"])
    assert found.near_evals.tolist()[:2] == [10, 50]
    text = table_of(frame(*rows))
    assert "Within one nat of its end it is after 0.5 s and 50 decoder evaluations." in text


def test_a_fit_that_ignores_z_is_called_so_and_the_baseline_has_a_line() -> None:
    of = "vae_bernoulli", "digits", "1000"
    known: Baselines = {(*of, "test", "50"): -10.0, (*of, "train", "50"): -9.0}
    rows = frame(*runs("aevb", [-9.95]), *runs("mean_field", [-8.0]))
    table = tables.summary(rows, known)
    assert table.unused.tolist() == [True, False] and table.baseline_test.tolist() == [-10.0, -10.0]
    assert "z unused" in terminal.plain(rows, known) and "z ignored: -10.00" in terminal.plain(rows, known)
    assert "unused" not in terminal.plain(rows) and not tables.summary(rows).unused.any()


def test_the_terminal_has_80_columns() -> None:
    rows = [
        row(backend=name, engine=engine, seed=s, value=-123.4 - s, metric=metric, split=split, method="warmup=20 " * 12)
        for name in ("monte_carlo_em", "mean_field")
        for engine in ("numpyro", "pyro")
        for s in range(3)
        for split in ("train", "test")
        for metric in ("elbo_nats", "log_px_quadrature_nats")
    ]
    assert max(map(len, terminal.plain(frame(*rows)).splitlines())) <= 80


@pytest.mark.parametrize(("nats", "room"), [(25.4, True), (123.4, True), (12345.6, False)])
def test_the_terminal_counts_active_latents_where_80_columns_have_room(nats: float, room: bool) -> None:
    """As `make compare` has them, as MNIST has them, and where no count fits any more."""
    values = {"elbo_nats": -nats - 1, "log_px_quadrature_nats": -nats}
    rows = [
        row(backend=name, engine=engine, seed=s, split="test", metric=metric, value=value + s - worse * (3 + 0.1 * s))
        for worse, name in enumerate(("mean_field", "monte_carlo_em"))
        for engine in ("numpyro", "pyro")
        for s in range(3)
        for metric, value in values.items()
    ]
    rows += [{**one, "metric": "active_latents", "value": 2.0 + (one["seed"] == 1)} for one in rows[::2]]
    text = terminal.plain(frame(*rows))
    head, first = text.splitlines()[1:3]
    assert head.endswith("bound test  AU seconds" if room else "bound test seconds")
    assert first.endswith(" 2.3     2.0") == room and (not room or max(map(len, text.splitlines())) <= 80)
    assert text.count("AU: active latent variables") == room


def test_told_marks_more_than_two_errors() -> None:
    assert standings.told(-0.3, 0.1) == "-0.30 ± 0.10 *" and standings.told(-0.3, 0.2) == "-0.30 ± 0.20"
    assert standings.told(0.0, 0.0) == "best" and standings.told(math.nan, math.nan) == "-"
    assert standings.told(-0.3, np.nan) == "-0.30"
    assert standings.told(-0.004, 0.001) == "-0.00 ± 0.00" and standings.told(-0.006, 0.001) == "-0.01 ± 0.00 *"


def test_a_tie_and_a_cost_that_nobody_knows_are_said_in_words() -> None:
    """Cells that were judged again, and not trained, have no seconds."""
    tie = [*runs("aevb", [-1.0], seconds=math.nan), *runs("mean_field", [-1.001], seconds=2.0)]
    text = " ".join(table_of(frame(*tie)).split())
    assert (
        "less than 0.01 nats above mean_field on pyro, with 1 seed. Within one nat of its end mean_field on pyro is"
        in text
    )
    nobody = [{**each, "seconds": math.nan} for each in tie]
    text = table_of(frame(*nobody))
    assert "with 1 seed." in text and "Within one nat" not in text and "nan s" not in text
