"""Tables and figures: what is averaged, what is compared, and how a missing number is shown."""

import csv
import io
import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from frames import frame, pipes, row, seeds, table_of

from comparisons.data import GREY
from comparisons.reporting import agreement, figures, tables, terminal
from comparisons.runner.rows import COLUMNS, to_csv

LOG_PX: dict[str, Any] = {"metric": "log_px_quadrature_nats", "value": -8.0}

# Summary


def test_one_seed_has_no_error_over_seeds_and_the_judges_beside_it() -> None:
    (line,) = tables.summary(frame(row(value=-12.5, stderr=0.25))).itertuples()
    assert (line.lower_bound_train, line.lower_bound_train_judge, line.seeds) == (-12.5, 0.25, 1)
    assert math.isnan(line.lower_bound_train_stderr)
    text = table_of(frame(row(value=-12.5, stderr=0.25)))
    assert "±" not in text.replace("hence no ±", "") and "1 seed, hence no ±" in text
    assert math.isnan(line.log_px_train) and math.isnan(line.lower_bound_test)


def test_several_seeds_show_their_mean_and_its_standard_error() -> None:
    (line,) = tables.summary(frame(*seeds("pyro", [1.0, 2.0, 6.0], stderr=100.0))).itertuples()
    # mean 3, squared deviations 4 + 1 + 9, variance 7
    assert (line.lower_bound_train, line.seeds) == (3.0, 3)
    assert line.lower_bound_train_stderr == pytest.approx(math.sqrt(7 / 3), rel=1e-14)
    assert line.lower_bound_train_judge == pytest.approx(100.0 / math.sqrt(3), rel=1e-14)  # of the mean


def test_the_last_checkpoint_of_each_cell_counts() -> None:
    rows = [
        row(n_seen=50_000, value=-99.0, decoder_evals=500, seconds=1.0),
        row(n_seen=100_000, value=-1.0),
        row(seed=1, n_seen=50_000, value=-88.0, decoder_evals=500, seconds=1.0),
        row(seed=1, n_seen=100_000, value=-3.0, decoder_evals=3000, seconds=4.0),
    ]
    (line,) = tables.summary(frame(*rows)).itertuples()
    assert (line.lower_bound_train, line.lower_bound_train_stderr) == (-2.0, 1.0)
    assert (line.n_seen, line.decoder_evals, line.seconds) == (100_000, 2000.0, 3.0)


@pytest.mark.parametrize("metric", ["log_px_quadrature_nats", "log_px_exact_nats"])
def test_bounds_and_evidence_of_both_splits_keep_their_places(metric: str) -> None:
    rows = [
        row(value=-4.0, stderr=0.1),
        row(split="test", value=-5.0, stderr=0.2),
        row(metric=metric, value=-2.0, stderr=0.3),
        row(metric=metric, split="test", value=-3.0, stderr=0.4),
        row(metric="hmc_acceptance", value=0.9, stderr=0.01),
    ]
    (line,) = tables.summary(frame(*rows)).itertuples()
    assert (line.lower_bound_train, line.lower_bound_test, line.log_px_train, line.log_px_test) == (-4, -5, -2, -3)
    errors = [getattr(line, f"{q}_{s}_judge") for q in ("lower_bound", "log_px") for s in ("train", "test")]
    assert errors == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "name", ["data", "n_train", "model", "n_latent", "n_hidden", "samples", "backend", "method", "engine"]
)
def test_what_tells_cells_apart_is_never_averaged_over(name: str) -> None:
    other = {
        "data": "mnist",
        "model": "vae_gaussian",
        "backend": "wake_sleep",
        "method": "theta=ml",
        "engine": "numpyro",
    }
    rows = frame(row(), row(**{name: other.get(name, 7)}, cell="other"))
    assert len(tables.summary(rows)) == 2


def test_step_sizes_that_seeds_chose_are_all_shown() -> None:
    rows = [row(seed=0, step_size=0.1), row(seed=1, step_size=0.01), row(seed=2, step_size=0.1)]
    assert tables.summary(frame(*rows)).step_size.tolist() == ["0.01 0.1"]


def test_a_diverged_seed_takes_the_mean_with_it() -> None:
    """A mean over the seeds that happened to survive would flatter the method."""
    rows = [row(seed=0), row(seed=1, value=math.nan, stderr=math.nan, status="diverged")]
    (line,) = tables.summary(frame(*rows)).itertuples()
    assert line.status == "diverged" and math.isnan(line.lower_bound_train)
    assert "diverged" in table_of(frame(*rows)) and "nan" not in table_of(frame(*rows))


# What a q uses


def with_use(rows: list[dict[str, Any]], counts: list[float], **changes: Any) -> pd.DataFrame:
    used = [
        row(seed=seed, split=split, metric=metric, value=value, stderr=0.1, **changes)
        for seed, count in enumerate(counts)
        for split in ("train", "test")
        for metric, value in (("kl_z_nats", 4.0 + seed), ("active_latents", count))
    ]
    return frame(*rows, *used)


def test_what_a_q_uses_stands_beside_its_bound_as_means_over_seeds() -> None:
    bounds = [*seeds("pyro", [-9.0, -8.0, -7.0], split="test"), row(backend="monte_carlo_em", split="test", **LOG_PX)]
    rows = with_use(bounds, [3.0, 2.0, 3.0])
    line = tables.summary(rows).set_index("backend").loc["aevb"]
    assert (line.kl_train, line.kl_test, line.active_test) == (5.0, 5.0, pytest.approx(8 / 3))
    assert line.active_test_stderr == pytest.approx(1 / 3) and line.active_test_judge == pytest.approx(0.1 / 3**0.5)
    text = table_of(rows)
    head, _, first, other = pipes(text)
    at = head.index("lower bound, train")
    assert head[at + 1 : at + 3] == ["KL, test", "active of 3, test"]
    assert first[at + 1 : at + 3] == ["5.00 ± 0.58", "2.67 ± 0.33"] and other[at + 1 : at + 3] == ["-", "-"]
    assert text.count("Cov_x(E_q[z])") == 1
    assert "| 3.00 ± 0.00 |" in table_of(with_use(bounds, [3.0, 3.0, 3.0]))


def test_rows_from_before_it_was_asked_make_the_tables_that_they_made() -> None:
    old = seeds("pyro", [-9.0, -8.0], split="test")
    assert not any(name.startswith(("kl", "active")) for name in tables.summary(frame(*old)))
    for text in (table_of(frame(*old)), terminal.plain(frame(*old))):
        assert not any(word in text for word in ("KL", "active", "AU"))
    beside = with_use(old, [2.0], n_latent=5)  # a panel of a later run
    one, two = table_of(beside).split("\n## ")
    assert "KL" not in one and "active of 5, test" in two


def test_a_diverged_run_has_no_count() -> None:
    lost = {"value": math.nan, "stderr": math.nan, "status": "diverged", "backend": "wake_sleep", "split": "test"}
    rows = with_use([row(split="test"), *(row(metric=name, **lost) for name in ("elbo_nats", "active_latents"))], [2.0])
    head, _, _, line = pipes(table_of(rows))
    assert line[head.index("active of 3, test")] == "diverged" and "nan" not in terminal.plain(rows)


# Agreement of the engines


def test_agreement_is_the_difference_in_standard_errors() -> None:
    rows = seeds("numpyro", [1.0, 2.0, 6.0]) + seeds("pyro", [0.0, 1.0, 2.0])
    (line,) = agreement.agreement(tables.summary(frame(*rows))).itertuples()
    # means 3 and 1; squared standard errors 7 / 3 and 1 / 3
    assert (line.quantity, line.difference) == ("lower_bound_train", 2.0)
    assert line.stderr == pytest.approx(math.sqrt(8 / 3), rel=1e-14)
    assert line.z == pytest.approx(2.0 / math.sqrt(8 / 3), rel=1e-14)
    text = table_of(frame(*rows))
    assert "| aevb | lower bound train | +2.000 ± 1.633 | +1.2 |" in text


def test_the_verdict_on_agreement_counts_what_chance_leaves_within_two_standard_errors() -> None:
    compared = pd.DataFrame({"z": [0.5, -2.5, 1.0, -1.9], "seeds": [4, 4, 6, 1002]})
    text = agreement.verdict(compared)
    assert "within two standard errors: 3 of 4" in text and "the largest is 2.5." in text
    # Student's t within 2: for 2 degrees of freedom sqrt(2 / 3), for 4 (sqrt(2) * 5 / 8), for 1000 nearly a normal's
    assert f"{2 * math.sqrt(2 / 3) + math.sqrt(2) * 5 / 8 + math.erf(math.sqrt(2)):.1f} are to be expected" in text


def test_agreement_needs_both_engines_and_several_seeds() -> None:
    one_engine = seeds("pyro", [0.0, 1.0, 2.0])
    one_seed = [row(engine="pyro"), row(engine="numpyro")]
    uneven = [*seeds("pyro", [0.0, 1.0]), row(engine="numpyro")]
    for rows in (one_engine, one_seed, uneven):
        assert agreement.agreement(tables.summary(frame(*rows))).empty
        assert "Do the engines agree" not in table_of(frame(*rows))


def test_every_two_of_three_engines_are_compared() -> None:
    """A third engine stands beside each of the others, in a table of its own; one seed of a fourth is too few."""
    values = {"numpyro": [1.0, 2.0, 6.0], "pyro": [0.0, 1.0, 2.0], "third": [0.0, 0.0]}
    rows = [one for engine, each in values.items() for one in seeds(engine, each)] + [row(engine="fourth")]
    found = agreement.agreement(tables.summary(frame(*rows)))
    pairs = {(line.engine, line.other): (line.difference, line.seeds) for line in found.itertuples()}
    assert pairs == {("numpyro", "pyro"): (2.0, 6), ("numpyro", "third"): (3.0, 5), ("pyro", "third"): (1.0, 5)}
    text = table_of(frame(*rows))
    assert all(f"Do the engines agree? {one} minus {other}, in nats" in text for one, other in pairs)
    two = [one for one in rows if one["engine"] in ("numpyro", "pyro")]
    assert text.count("| lower bound train | +2.000 ± 1.633 | +1.2 |") == 1 == table_of(frame(*two)).count("agree?")


def test_agreement_leaves_out_what_diverged() -> None:
    rows = seeds("pyro", [0.0, 1.0]) + seeds("numpyro", [math.nan, 1.0], status="diverged")
    assert agreement.agreement(tables.summary(frame(*rows))).empty


def test_engines_that_agree_to_the_last_bit_have_no_difference() -> None:
    rows = seeds("pyro", [1.0, 1.0]) + seeds("numpyro", [1.0, 1.0])
    text = table_of(frame(*rows))
    assert "+0.000 ± 0.000" in text and "nan" not in text and "inf" not in text


# Markdown


def test_a_missing_bound_is_a_dash_and_says_why() -> None:
    rows = frame(row(backend="monte_carlo_em", metric="log_px_quadrature_nats"))
    head, _, line = pipes(table_of(rows))
    assert line[head.index("lower bound, train")] == "-" and line[head.index("log p(x), test")] == "-"
    assert line[head.index("log p(x), train")] == "-10.00"
    assert "monte_carlo_em has no q, hence no bound." in table_of(rows)


def test_a_diverged_run_is_shown_as_such_everywhere() -> None:
    lost = {"value": math.nan, "stderr": math.nan, "status": "diverged"}
    rows = frame(row(**lost), row(**lost, split="test"), row(backend="wake_sleep"))
    head, _, *lines = pipes(table_of(rows))
    assert [line[head.index("lower bound, train")] for line in lines] == ["diverged", "-10.00"]
    assert "diverged" in terminal.plain(rows)


@pytest.mark.fault("HTML, Markdown and CSV in the name of a model or backend", "shown as text, or refused as a name")
def test_names_are_escaped() -> None:
    names = {"backend": "a|b", "data": "d|<b>", "model": "m|<i>"}
    rows = frame(row(**names, method="x=<script>"), row(**{**names, "backend": "b|<p>"}, engine="numpyro"))
    text = table_of(rows)
    assert "<" not in text
    head, rule, line, _ = pipes(text)
    assert len(head) == len(rule) == len(line)
    assert line[:3] == ["a\\|b", "x=&lt;script&gt;", "pyro"]


def test_the_method_has_a_column_only_where_it_differs() -> None:
    assert "method" not in pipes(table_of(frame(row())))[0]
    assert "method" not in pipes(table_of(frame(row(method="theta=ml"))))[0]
    assert "`theta=ml`" in table_of(frame(row(method="theta=ml")))
    assert "method" in pipes(table_of(frame(row(), row(method="theta=ml"))))[0]


@pytest.mark.parametrize(
    ("data", "grey"), [("mnist", True), ("digits", True), ("mnist_binary", False), ("frey", False)]
)
def test_grey_values_are_called_a_cross_entropy(data: str, grey: bool) -> None:
    rows = frame(row(data=data))
    assert (GREY in table_of(rows)) == grey
    assert ("cross-entropy" in figures.learning_curves(rows)) == grey


def test_the_note_says_what_the_error_is_of() -> None:
    assert "one standard error over seeds" in table_of(frame(*seeds("pyro", [1.0, 2.0])))


def test_each_panel_has_its_section() -> None:
    text = table_of(frame(row(n_latent=2), row(n_latent=3)))
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## digits, 1000 training points, vae_bernoulli, {k} latent variables, 100 hidden units, 100,000 points seen"
        for k in (2, 3)
    ]


# Purity


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = frame(*seeds("pyro", [1.0, 2.0, 6.0]), *seeds("numpyro", [0.0, 1.5]), row(backend="wake_sleep"))
    shuffled = rows.sample(frac=1, random_state=0)
    assert table_of(shuffled) == table_of(rows)
    assert figures.learning_curves(shuffled) == figures.learning_curves(rows)


def test_a_figure_is_xml_and_names_what_it_shows() -> None:
    rows = frame(
        *(
            row(n_seen=n, value=-1e6 / n, seed=s, split=split, backend=b)
            for n in (10, 100, 1000)
            for s in (0, 1)
            for split in ("train", "test")
            for b in ("aevb", "my_backend")
        ),
    )
    text = figures.learning_curves(rows)
    root = ElementTree.parse(io.StringIO(text)).getroot()
    assert root.tag.endswith("svg")
    for word in ("aevb", "my_backend", "pyro", "train", "test", "nats per datapoint", "training points seen"):
        assert word in text


def test_a_figure_of_nothing_but_diverged_runs_is_still_a_figure() -> None:
    rows = frame(row(value=math.nan, stderr=math.nan, status="diverged"))
    ElementTree.parse(io.StringIO(figures.learning_curves(rows)))


# Rows


def test_a_number_that_is_missing_is_an_empty_field() -> None:
    text = to_csv([row(value=math.nan, stderr=math.inf, seed=None)])
    read = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert tuple(read.columns) == COLUMNS
    assert read.loc[0, ["value", "stderr", "seed"]].tolist() == ["", "", ""]


def test_numbers_are_written_in_full() -> None:
    value = float(np.nextafter(-1 / 3, 0))
    (read,) = csv.DictReader(io.StringIO(to_csv([row(value=value, stderr=np.float64(1e-300))])))
    assert (float(read["value"]), float(read["stderr"])) == (value, 1e-300)


def test_how_the_papers_estimator_came_by_its_chains_makes_no_two_methods() -> None:
    """An engine judged with chains kept is held against one that was judged with chains begun anew."""
    rows = [
        row(engine=engine, method=method, seed=seed, cell=f"{engine}{seed}", value=value + 0.01 * seed)
        for engine, method, value in (("numpyro", "warmup=0 chains=kept", -10.0), ("pyro", "warmup=0", -10.5))
        for seed in range(3)
    ]
    rows.append(row(engine="pyro", method="warmup=0 chains=kept", cell="pyro anew", value=-10.5))  # one seed of them
    (found,) = agreement.agreement(tables.summary(frame(*rows))).itertuples()
    assert found.method == "warmup=0" and found.difference == pytest.approx(0.5)
