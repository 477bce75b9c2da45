"""Auto-encoding variational Bayes (Kingma & Welling 2013, algorithm 1): SVI with an amortized guide.

The guide is the recognition network q(z | x, phi); theta and phi climb the same bound,

    L(theta, phi; x_i) = E_q[log p(x_i, z | theta) - log q(z | x_i, phi)]            (equations 2 and 3)

estimated from L reparameterised draws (equation 6, or 7 with the KL term in closed form) on minibatches (equation 8).
With a normal guide over theta it is the paper's full VB, algorithm 2 (see `theta`).
"""

from functools import partial

from inference import gradients
from inference.amortized import amortized, amortized_posterior
from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Params, Settings, State, arrays, join
from inference.latents import latents, ones
from inference.rows import recognition
from inference.theta import svi, theta, theta_posterior, with_scales
from models.base import Model


def aevb(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Build the backend; its state is the SVI's: params `theta.*` and `phi.*`, and the optimiser's accumulators.

    For `vb` also `theta_log_scale.*`; `theta.*` is then the mean of q(theta). Raises ValueError for latent sites that
    the guide samples in another order than the model, where the KL is in closed form.
    """

    if settings.estimator == "B":
        _hold_order(engine, model)
    on_both = svi(engine, model, settings, partial(amortized, model))

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        return on_both.init(with_scales(engine, settings.theta, join(theta=theta, phi=phi)), step_size)

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        state, loss = on_both.update(key, state, batch.x, batch.fraction)
        n = batch.x.shape[0]
        return state, Info(-loss / n, n * gradients.evaluations(settings), float("nan"))

    return Backend(init, step, theta, amortized_posterior(model), theta_posterior(model, settings.theta))


def _hold_order(engine: Engine, model: Model) -> None:
    """Raise ValueError where the KL of each site, given those that were drawn before it, is no term of the bound."""
    sites = latents(engine, model)
    names = [site.name for site in sites.sites]
    if len(names) == 1:
        return
    with engine.pinned():
        phi = arrays(engine, model.init(0)[1])
        said = engine.outline(engine.key(0), recognition(model), phi, ones(engine, model, 2))
    drawn = [name for name in said if name in names]
    if drawn != names:
        raise ValueError(
            f"estimator 'B' takes the KL of one site after the other in closed form, and generative samples "
            f"{', '.join(names)}, recognition {', '.join(drawn)}; sample them in one order, or choose --estimator A"
        )


AEVB = Method(
    aevb, title="AEVB", has_q=True, has_q_theta=True, refuses=gradients.refusal, evaluations=gradients.evaluations
)
