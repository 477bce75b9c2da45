"""Coordinate ascent variational inference (Bishop 2006, section 10.1; Blei et al. 2017), where it is in closed form.

q(z_i) = prod_j N(z_ij; mu_ij, sigma_j^2), mean-field VI's family. A step maximises the bound

    L(theta, q; x_i) = E_q[log p(x_i, z_i | theta) - log q(z_i)]                      (equation 2)

over each coordinate's factor in turn, for all datapoints, and then over theta: it rises at every step. There is no step
size, and no noise: what stochastic mean-field VI comes to.
"""

from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Params, Posterior, Settings, State, join
from inference.conjugate import held, refusal
from inference.latents import latents
from inference.local import prior
from inference.theta import theta
from models.base import Model


def cavi(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Build the backend; its state holds params `theta.*`, and `local` with loc and log_scale [N, k].

    Raises ValueError for a model whose factors are not in closed form.
    """
    updates, xp, sites = held(model, settings, INSTEAD, sweeps=True), engine.ppl.xp, latents(engine, model)

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        return {"params": join(theta=theta), "local": prior(engine, x, sites.size)}

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        local = state["local"]
        q, bound = updates.sweep(xp, theta(state), batch.x, local["loc"][batch.indices])
        weight = batch.fraction if settings.theta == "map" else 0.0
        found = updates.m_step(xp, theta(state), batch.x, q, weight)
        local = {name: engine.put(local[name], batch.indices, rows) for name, rows in normal(q).items()}
        return {"params": join(theta=found), "local": local}, Info(bound.mean(), batch.x.shape[0], float("nan"))

    def normal(q: Params) -> Params:
        return {"loc": q["loc"], "log_scale": 0.5 * xp.log(q["variance"]) + xp.zeros_like(q["loc"])}

    def ended(at: Params, x: Array) -> Params:
        exact, _ = updates.e_step(xp, at, x)  # a normal's mean is where the sweeps end
        return normal(updates.sweep(xp, at, x, exact["loc"])[0])

    def posterior(key: Key, state: State, x: Array, indices: Array | None) -> Posterior:
        with engine.pinned():
            if indices is not None:
                return Posterior(sites.normal, ({name: rows[indices] for name, rows in state["local"].items()},))
            return Posterior(sites.normal, (engine.at_once(ended, theta(state), x),))

    return Backend(init, step, theta, posterior)


INSTEAD = "mean_field"  # fits the same family by gradients, for any model
CAVI = Method(
    cavi,
    title="CAVI",
    has_q=True,
    has_q_theta=False,
    full_batch=lambda settings: True,
    evaluations=lambda settings: 1.0,
    updates=lambda settings: 0,
    refuses=lambda model, settings: refusal(model, settings, INSTEAD, sweeps=True),
)
