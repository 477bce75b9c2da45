"""What is known of a file's backend only when it is built: its rows owe what it has, and its failure is its own."""

from pathlib import Path

import pytest

from comparisons import marginal_likelihood
from comparisons.errors import UnfitError
from comparisons.runner import store

OWN = """
from inference.aevb import aevb


def without_q(engine, model, settings):
    def step(key, state, batch):
        raise RuntimeError("it broke")

    return aevb(engine, model, settings)._replace(step=step, posterior=None, theta_posterior=None)


def at_a_point(engine, model, settings):
    return aevb(engine, model, settings)._replace(theta_posterior=None)


def breaks(engine, model, settings):
    if settings.theta == "vb":
        raise ValueError("at a point alone")
    return aevb(engine, model, settings)
"""
SMALL = ("--samples", "200", "--n-latent", "2", "--n-hidden", "4", "--eval-points", "10", "--step-size", "0.05")


def command(out: Path, *flags: str) -> int:
    own = out / "own.py"
    own.write_text(OWN)
    named = [flag.replace("own.py", str(own)) for flag in flags]
    return marginal_likelihood.main([*named, *SMALL, "--engine", "pyro", "--warmup", "0", "--out", str(out)])


@pytest.mark.fault("a file's backend that fails in training", "failed rows of what it owed, and of nothing else")
def test_a_failed_backend_without_q_owed_no_bound(tmp_path: Path) -> None:
    assert command(tmp_path, "--backend", "own.py:without_q", "aevb") == 1
    rows = store.read_rows(tmp_path / "rows.csv")
    lost = rows[rows.status == "failed"]
    assert set(lost.metric) == {"log_px_quadrature_nats"} and set(lost.backend) == {"own.py:without_q"}
    of_q = {"elbo_nats", "kl_z_nats", "active_latents"}
    assert set(rows[rows.backend == "aevb"].metric) == of_q | {"log_px_quadrature_nats"}


@pytest.mark.fault(
    "a file's backend that cannot have a q(theta), under --theta vb", "that cell fails, the others finish, exit code 2"
)
def test_a_cell_that_its_backend_cannot_run_fails_alone(tmp_path: Path) -> None:
    flags = ("--backend", "own.py:at_a_point", "--theta", "vb", "map", "--evidence", "none")
    with pytest.raises(UnfitError, match="is for the backends aevb and mean_field, not own"):
        command(tmp_path, *flags)
    rows = store.read_rows(tmp_path / "rows.csv")
    assert set(rows[rows.method.str.contains("theta=vb")].status) == {"failed"}
    assert set(rows[~rows.method.str.contains("theta=vb")].status) == {"ok"}


def test_a_backend_that_cannot_be_built_for_one_cell_leaves_the_others_their_run(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="at a point alone"):
        command(tmp_path, "--backend", "own.py:breaks", "--theta", "vb", "map", "--evidence", "none")
    rows = store.read_rows(tmp_path / "rows.csv")
    assert set(rows[rows.method.str.contains("theta=vb")].status) == {"failed"}
    assert set(rows[~rows.method.str.contains("theta=vb")].status) == {"ok"}
