"""`judge`: theta as anybody has it, against closed forms and SciPy; what does not fit is one line."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from test_objects import MODEL

from comparisons import judge
from comparisons.errors import DataError, FlagError, NumericsError, UnfitError, UserError
from comparisons.library.judge import Judged
from comparisons.runner.sizes import sized
from inference import ENGINES
from inference.base import join
from models import MODELS
from models.linear_gaussian import LinearGaussian, posterior
from models.vae import VaeBernoulli

RNG = np.random.default_rng(0)
SIZES = (9, 2, 5)
THETA, PHI = ({name: RNG.normal(size=v.shape) for name, v in group.items()} for group in VaeBernoulli(*SIZES).init(0))
X = (RNG.random((6, 9)) < 0.4).astype(float)
# Of orthogonal rows, so that a normal with a variance for each latent is the posterior.
ROTATED = np.array([[1.5], [0.7]]) * np.linalg.svd(RNG.normal(size=(2, 5)), full_matrices=False)[2]
LINEAR = {"w": ROTATED, "b": RNG.normal(size=5), "log_scale": np.array(-0.3)}
ROWS = RNG.normal(size=(8, 5))


def exact_q() -> dict[str, np.ndarray]:
    """The phi whose q(z | x) is the exact posterior of LINEAR."""
    mean = np.stack([posterior(LINEAR, row[None])[0][0] for row in np.eye(5)]) - posterior(LINEAR, np.zeros((1, 5)))[0]
    covariance = posterior(LINEAR, np.zeros((1, 5)))[1]
    return {"w": mean, "b": posterior(LINEAR, np.zeros((1, 5)))[0][0], "log_scale": 0.5 * np.log(np.diag(covariance))}


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_scipy_s_log_density_and_the_bound_of_the_posterior_touches_it(engine: str) -> None:
    covariance = LINEAR["w"].T @ LINEAR["w"] + np.exp(2 * LINEAR["log_scale"]) * np.eye(5)
    expected = multivariate_normal(LINEAR["b"], covariance).logpdf(ROWS)
    found = judge("linear_gaussian", LINEAR, ROWS, exact_q(), evidence=["quadrature", "exact"], engine=engine)
    for name in ("log_px_quadrature_nats", "log_px_exact_nats"):
        np.testing.assert_allclose(found.estimates[name].value, expected, atol=2e-4)
    np.testing.assert_allclose(found.estimates["elbo_nats"].value, expected, atol=2e-4)  # its weights are constant
    assert found.mean == pytest.approx(expected.mean(), abs=2e-4) and found.mean_stderr < 1e-3
    assert found.value.shape == found.stderr.shape == found.flagged.shape == (8,) and not found.flagged.any()
    table = found.table.set_index("metric")
    mean, sd = posterior(LINEAR, ROWS)[0], np.exp(exact_q()["log_scale"])
    closed = 0.5 * (np.square(mean).sum(1) + (sd**2 - 1 - 2 * np.log(sd)).sum()).mean()
    assert abs(table["mean"].kl_z_nats - closed) < 4 * table.stderr.kl_z_nats and table["mean"].active_latents == 2
    assert list(judge("linear_gaussian", LINEAR, ROWS).estimates) == ["log_px_exact_nats"]  # auto


@pytest.mark.parametrize("form", ["numpy", "torch", "jax", "npz", "safetensors", "model", "class", "file"])
def test_theta_and_model_come_in_any_form(form: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    expected = judge("vae_bernoulli", THETA, X, PHI, engine="pyro")
    theta, phi, model = dict[str, Any](THETA), dict[str, Any](PHI), "vae_bernoulli"
    (tmp_path / "own.py").write_text(MODEL)
    save_file({k: v.astype(np.float32) for k, v in THETA.items()}, tmp_path / "one.safetensors")
    both: Any = {f"{group}.{k}": v for group, one in (("theta", THETA), ("phi", PHI)) for k, v in one.items()}
    np.savez(tmp_path / "one.npz", **both)
    given: Any = {
        "numpy": lambda: (model, theta, X[:, None], phi),
        "torch": lambda: (model, {k: torch.tensor(v, requires_grad=True) for k, v in theta.items()}, X, phi),
        "jax": lambda: (model, {k: jax.numpy.asarray(v) for k, v in theta.items()}, torch.tensor(X), phi),
        "npz": lambda: (model, str(tmp_path / "one.npz"), X),
        "safetensors": lambda: (model, tmp_path / "one.safetensors", X, phi),
        "model": lambda: (VaeBernoulli(*SIZES), theta, X, phi),
        "class": lambda: (VaeBernoulli, theta, X, phi),
        "file": lambda: (f"{tmp_path / 'own.py'}:Mine", theta, X, phi),
    }
    found = judge(*given[form](), engine="pyro")
    np.testing.assert_array_equal(found.value, expected.value)
    np.testing.assert_array_equal(found.estimates["elbo_nats"].value, expected.estimates["elbo_nats"].value)


@pytest.mark.parametrize("sizes", [(7, 3, 5), (4, 3, 20), (30, 10, 2), (6, 1, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_read_off_the_shapes_of_any_registered_model(name: str, sizes: tuple[int, int, int]) -> None:
    model = MODELS[name](*sizes)
    theta, phi = model.init(0)
    # Of a size that no parameter has, nothing can be read off.
    assert sized(name, MODELS[name], join(theta=theta)).theta_shapes == model.theta_shapes
    found = sized(name, MODELS[name], join(theta=theta, phi=phi), sizes[0])
    assert found.theta_shapes == model.theta_shapes and (found.n_x, found.n_latent) == sizes[:2]
    assert {key: v.shape for key, v in found.init(0)[1].items()} == {key: v.shape for key, v in phi.items()}


def test_a_length_that_is_a_size_twice_over_is_read_too() -> None:
    class Doubled(VaeBernoulli):
        @property
        def theta_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"w": (2 * self.n_latent + 1, self.n_hidden + self.n_x), "b": (3 * self.n_hidden,)}

    model = sized("Doubled", Doubled, {"theta.w": np.zeros((7, 14)), "theta.b": np.zeros(15)}, 9)
    assert (model.n_x, model.n_latent, model.n_hidden) == (9, 3, 5)  # type: ignore[attr-defined]


TURNED = r"theta w1 is \[5, 2\], where vae_bernoulli of n_x 9, n_latent 2, n_hidden 5 has \[2, 5\]; it is transposed"
REFUSED: list[tuple[dict[str, Any], type[UserError], str]] = [
    ({"theta": {k: v.T for k, v in THETA.items()}}, DataError, TURNED),
    ({"phi": {k: v.T for k, v in PHI.items()}}, DataError, r"phi w3 is \[5, 9\], .* has \[9, 5\]; it is transposed"),
    ({"theta": {"w1": THETA["w1"]}}, DataError, "theta lacks b1, b2, w2; that of vae_bernoulli is of w1, b1, w2, b2"),
    ({"theta": THETA | {"w9": X}}, DataError, "theta has w9 beyond"),
    ({"theta": THETA | {"b1": X[0, :3]}}, DataError, r"theta b1 is \[3\], where .* has \[5\]$"),
    ({"theta": THETA | {"b1": np.full(5, np.nan)}}, DataError, "theta b1 holds numbers that are not finite"),
    ({"theta": THETA | {"b1": "five"}}, DataError, "theta b1 is no array"),
    ({"theta": [1.0]}, DataError, "theta is of type list; give arrays by name, or a .npz"),
    ({"theta": "missing.npz"}, DataError, "missing.npz cannot be read"),
    ({"theta": "theta.pt"}, DataError, "theta.pt does not end in .npz or .safetensors"),
    ({"phi": {"w3": X}}, DataError, "phi lacks b3"),
    ({"x": X[:, :4]}, DataError, r"theta w2 is \[5, 9\], where .* n_x 4, .* has \[5, 4\]$"),
    ({"x": X * 3}, DataError, r"x: row 0, column \d is 3.0, not a number in \[0, 1\]"),
    ({"x": X[:0]}, DataError, "x has the shape"),
    ({"model": "vae_bernouli"}, FlagError, "did you mean vae_bernoulli"),
    ({"model": "missing.py:Mine"}, FlagError, "model file 'missing.py' is missing"),
    ({"model": 3}, FlagError, "model is of type int"),
    ({"model": VaeBernoulli(9, 3, 5)}, DataError, r"theta w1 is \[2, 5\], where VaeBernoulli of n_x 9, n_latent 3"),
    ({"evidence": "exact"}, UnfitError, "needs a closed form of log p"),
    ({"evidence": "none"}, FlagError, "leaves nothing to judge"),
    ({"evidence": ("none", "quadrature")}, FlagError, "excludes the others"),
    ({"evidence": "importance", "proposal": "q"}, UnfitError, "has no q"),
    ({"sede": 1}, FlagError, "unknown setting 'sede'; did you mean seed"),
    ({"elbo_draws": 1}, FlagError, "elbo_draws 1 is out of range"),
    ({"engine": "stan"}, FlagError, "unknown engine 'stan'"),
    ({"log_variance_factor": 0.1, "model": "linear_gaussian", "theta": LINEAR, "x": ROWS}, FlagError, "log-variance"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), REFUSED)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], kind: type[UserError], words: str) -> None:
    given: dict[str, Any] = {"model": "vae_bernoulli", "theta": THETA, "x": X, "engine": "pyro"}
    with pytest.raises(kind, match=words) as caught:
        judge(**given | changes)
    assert "\n" not in str(caught.value)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", w1=np.array([print], object))
    with pytest.raises(DataError, match=r"bad\.npz cannot be read: Object arrays"):
        judge("vae_bernoulli", tmp_path / "bad.npz", X)


def test_a_model_that_breaks_the_contract_is_refused_as_a_cell_refuses_it() -> None:
    class Wide(LinearGaussian):
        def generative(self, ppl: Any, theta: Any, n: int) -> None:
            with ppl.plate("data", n):
                with ppl.scale(scale=0.5):
                    z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([2]).to_event(1))
                ppl.sample("x", ppl.dist.Normal(ppl.xp.matmul(z, theta["w"]), 1.0).to_event(1))

    with pytest.raises(
        FlagError, match=r"^model 'Wide' on pyro cannot be compared. Found the site z of generative with a scaled score"
    ):
        judge(Wide(5, 2), LINEAR, ROWS, engine="pyro")


def test_a_bound_above_log_px_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(LinearGaussian):
        def log_px(self, theta: Any, x: np.ndarray) -> np.ndarray:
            return super().log_px(theta, x) - 50.0

    found = judge(Wrong(5, 2), LINEAR, ROWS, exact_q(), engine="pyro", evidence="exact")
    assert list(found.table.status) == ["contradicted", "ok", "ok", "ok"]
    assert "log_px_exact_nats cannot be right, or the bound cannot: the lower bound exceeds it by 5" in repr(found)

    class Broken(LinearGaussian):
        def log_px(self, theta: Any, x: np.ndarray) -> np.ndarray:
            return super().log_px(theta, x) * np.inf

    with pytest.raises(NumericsError, match="log_px_exact_nats of Broken is not finite"):
        judge(Broken(5, 2), LINEAR, ROWS, engine="pyro")


def test_it_shows_itself_in_a_terminal_and_in_a_notebook() -> None:
    found = judge("vae_bernoulli", THETA, X, PHI, engine="pyro", evidence=["quadrature", "importance"])
    assert isinstance(found, Judged) and list(found.table.columns) == [
        "metric", "mean", "stderr", "flagged", "seconds", "status",
    ]  # fmt: skip
    metrics = ["log_px_quadrature_nats", "log_px_importance_nats", "elbo_nats", "kl_z_nats", "active_latents"]
    assert list(found.table.metric) == metrics and (found.table.seconds >= 0).all()
    assert all(metric in repr(found) for metric in metrics) and max(map(len, repr(found).splitlines())) <= 80
    html = found._repr_html_()
    assert html.count("<table") == 1 and "elbo_nats" in html
    alone = judge("vae_bernoulli", THETA, X, PHI, engine="pyro", evidence="none")
    np.testing.assert_array_equal(alone.value, found.estimates["elbo_nats"].value)
