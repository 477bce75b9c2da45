"""The Bayesian mixture of Gaussians: its bound rises, below an evidence by enumeration, to where scikit-learn ends."""

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import BayesianGaussianMixture

from inference.bayesian_mixture import Prior, bound, init, log_evidence, step

PRIOR = Prior(0.7, 0.5, np.array([0.3, -0.2]), np.array([[1.5, 0.2], [0.2, 1.0]]), 3.5)


def few(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(-2, 1, (5, 2)), rng.normal(2, 0.5, (4, 2))])


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_rises_at_every_step_and_stays_below_the_evidence(seed: int) -> None:
    x = few(seed)
    state = init(x, np.random.default_rng(seed).dirichlet(np.ones(2), len(x)), PRIOR)
    reached = [bound(state, x, PRIOR)]
    for _ in range(100):
        state, info = step(state, x, PRIOR)
        reached.append(info.bound)
    evidence, _ = log_evidence(x, 2, PRIOR)
    assert (np.diff(reached) > -1e-10).all() and reached[-1] > reached[0]
    assert reached[-1] < evidence


def test_of_one_component_the_bound_is_the_evidence_and_the_evidence_a_product_of_students() -> None:
    """With K = 1 nothing is factorised away; one datapoint after the other has Student's t for a prediction."""
    x, d = few(), 2
    evidence, _ = log_evidence(x, 1, PRIOR)
    assert bound(init(x, np.ones((len(x), 1)), PRIOR), x, PRIOR) == pytest.approx(evidence, abs=1e-10)
    total = 0.0
    for i, row in enumerate(x):
        q = init(x[:i], np.ones((i, 1)), PRIOR)
        df = q.nu[0] - d + 1
        shape = q.inverse[0] * (q.beta[0] + 1) / (q.beta[0] * df)
        total += stats.multivariate_t(q.mean[0], shape, df=df).logpdf(row)
    assert total == pytest.approx(evidence, abs=1e-9)


def test_apart_from_its_labels_it_shares_out_datapoints_as_the_exact_posterior_does() -> None:
    """Two clusters far apart: the exact posterior has two labellings of one partition, and the bound lacks log 2.

    Both labellings of q together are KL = log p(X) - log 2 - bound from it, and so, after Pinsker, sqrt(KL / 2) at most
    in any probability.
    """
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(-5, 0.5, (5, 2)), rng.normal(5, 0.5, (4, 2))])
    state = init(x, np.repeat([[0.9, 0.1], [0.1, 0.9]], [5, 4], axis=0), PRIOR)
    for _ in range(100):
        state, info = step(state, x, PRIOR)
    evidence, together = log_evidence(x, 2, PRIOR)
    apart = ~np.eye(len(x), dtype=bool)
    kl = evidence - np.log(2) - info.bound
    assert 0.0 < kl < 0.1
    np.testing.assert_allclose((state.r @ state.r.T)[apart], together[apart], atol=np.sqrt(kl / 2))


def test_it_ends_where_scikit_learn_does() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, 2)) + np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]])[rng.choice(3, 300)]
    found = []
    for seed, components in ((0, 3), (1, 3)):
        sk = BayesianGaussianMixture(
            n_components=components,
            tol=1e-10,
            max_iter=10_000,
            reg_covar=0.0,
            weight_concentration_prior_type="dirichlet_distribution",
            weight_concentration_prior=PRIOR.alpha,
            mean_precision_prior=PRIOR.beta,
            mean_prior=PRIOR.mean,
            degrees_of_freedom_prior=PRIOR.nu,
            covariance_prior=PRIOR.inverse,
            init_params="kmeans" if seed == 0 else "random",
            random_state=seed,
        ).fit(x)
        state, info = step(init(x, sk.predict_proba(x), PRIOR), x, PRIOR)
        np.testing.assert_allclose(state.r, sk.predict_proba(x), atol=1e-4)
        np.testing.assert_allclose(state.alpha, sk.weight_concentration_, rtol=1e-4)
        np.testing.assert_allclose(state.beta, sk.mean_precision_, rtol=1e-4)
        np.testing.assert_allclose(state.nu, sk.degrees_of_freedom_, rtol=1e-4)
        np.testing.assert_allclose(state.mean, sk.means_, atol=1e-3)
        np.testing.assert_allclose(state.inverse / state.nu[:, None, None], sk.covariances_, atol=1e-3)
        found.append((info.bound, sk.lower_bound_))
    # Its bound leaves constants out: the difference of two fits has none.
    assert found[0][0] - found[1][0] == pytest.approx(found[0][1] - found[1][1], abs=1e-4)
