"""The NumPyro / jax engine: with `jax_settings`, the only file that names jax and numpyro."""

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from numpyro import distributions, handlers
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.svi import SVIState

from inference.base import Array, Key, Optimizer, Params, Program, Site, State
from inference.engines import jax_settings
from inference.engines.pins import Pins, verb

ELBOS = {"A": Trace_ELBO, "B": TraceMeanField_ELBO}
NN = SimpleNamespace(
    relu=jax.nn.relu,
    elu=jax.nn.elu,
    softplus=jax.nn.softplus,
    sigmoid=jax.nn.sigmoid,
    softmax=jax.nn.softmax,
    logsumexp=partial(jax.nn.logsumexp, axis=-1),
    linear=lambda x, w, b: jnp.matmul(x, w) + b,
)


class Reparameterised(distributions.Distribution):  # type: ignore[misc]
    """See `models.base.Ppl.reparameterised`."""

    def __init__(self, law: Any, noise: Any, path: Callable[[Array], Array]) -> None:
        self._law, self._noise, self._path = law, noise, path
        super().__init__(tuple(law.batch_shape), tuple(law.event_shape), validate_args=False)

    support = property(lambda self: self._law.support)
    has_rsample = property(lambda self: True)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        return self._path(self._noise.sample(key, sample_shape))

    def log_prob(self, value: Array) -> Array:
        return self._law.log_prob(value)


PPL: Any = SimpleNamespace(
    dist=distributions,
    xp=jnp,
    nn=NN,
    sample=numpyro.sample,
    plate=numpyro.plate,
    condition=handlers.condition,
    scale=handlers.scale,
    factor=numpyro.factor,
    biject_to=distributions.biject_to,
    kl_divergence=distributions.kl_divergence,
    stop=jax.lax.stop_gradient,
    reparameterised=Reparameterised,
)


class NumpyroEngine:
    """See `inference.base.Engine`. It always compiles, `compiled` or not.

    Raises RuntimeError where jax has no such device, or has started with other threads.
    """

    name = "numpyro"

    def __init__(self, device: str = "cpu", threads: int = 1, compiled: bool = True) -> None:
        jax_settings.take_threads(threads)
        if device == "cpu":
            jax_settings.keep_programs(threads)
        self.device = jax_settings.device_of(device)
        self._pins = Pins(partial(jax_settings.enter, device=self.device))
        self.ppl = PPL

    @property
    def compiling_seconds(self) -> float:
        return jax_settings.compiling_seconds

    def pinned(self) -> Pins:
        return self._pins

    @verb
    def draw(self, key: Key, program: Program, *args: Any) -> Params:
        trace = handlers.trace(handlers.seed(program, key)).get_trace(self.ppl, *args)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}

    @verb
    def log_prob(self, program: Program, values: Mapping[str, Array], *args: Any) -> Array:
        total: Any = 0.0
        for site in self._scored(program, values, *args).values():
            score = site["fn"].log_prob(site["value"])
            total = total + (score if site["scale"] is None else site["scale"] * score)
        return total

    @verb
    def conditional(self, program: Program, site: str, values: Mapping[str, Array], *args: Any) -> Any:
        return self._scored(program, values, *args)[site]["fn"]

    @verb
    def sites(self, key: Key, program: Program, values: Mapping[str, Array], *args: Any) -> dict[str, Site]:
        conditioned = handlers.condition(handlers.seed(program, key), data=dict(values))
        trace = handlers.trace(conditioned).get_trace(self.ppl, *args)
        return {name: _site(site) for name, site in trace.items() if site["type"] != "plate"}

    @verb
    def outline(self, key: Key, program: Program, *args: Any) -> dict[str, Site]:
        found = _abstract(lambda *args: self.sites(key, program, {}, *args), *args)
        return self.sites(key, program, {}, *args) if found is None else found

    def value_and_grad(self, function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        return self._pins.around(jax.value_and_grad(function, has_aux=has_aux))

    @verb
    def scan(
        self, step: Callable[..., Any], carry: Any, xs: tuple[Array, ...], count: Array | None = None
    ) -> tuple[Any, Any]:
        if count is None:
            return jax.lax.scan(step, carry, xs)
        once = jax.jit(step, inline=True)  # so that it is traced once, for the shape of y and in the loop

        def turn(i: Array, both: Any) -> Any:
            carry, ys = both
            carry, y = once(carry, jax.tree.map(lambda x: x[i], xs))
            return carry, jax.tree.map(lambda all_y, one: all_y.at[i].set(one), ys, y)

        _, y = jax.eval_shape(once, carry, jax.tree.map(lambda x: x[0], xs))
        ys = jax.tree.map(lambda one: jnp.zeros((len(xs[0]), *one.shape), one.dtype), y)
        return jax.lax.fori_loop(0, count, turn, (carry, ys))

    def compile(self, function: Callable[..., Any], consumed: bool = False) -> Callable[..., Any]:
        jax_settings.let_go_of_programs()
        return self._pins.around(jax.jit(function, donate_argnums=0 if consumed else ()))

    @verb
    def at_once(self, function: Callable[..., Any], *args: Any) -> Any:
        return jax.jit(function)(*args)

    @verb
    def put(self, array: Array, indices: Array, rows: Array) -> Array:
        return array.at[indices].set(rows)

    @verb
    def array(self, value: Any) -> Array:
        value = np.asarray(value)
        kind = np.int32 if value.dtype.kind in "iu" else np.float32
        return jax.device_put(value.astype(kind), self.device)

    @verb
    def numpy(self, value: Array) -> Any:
        return np.array(value)

    @verb
    def key(self, seed: int) -> Key:
        # What jax.random.PRNGKey makes of a seed in 32 bits, but for an offset that the process may have set.
        return jax.device_put(np.array([0, seed % 2**32], np.uint32), self.device)

    @verb
    def split(self, key: Key, count: int = 2) -> Any:
        return jax.random.split(key, count)

    @verb
    def fold_in(self, key: Key, data: Any) -> Key:
        return jax.random.fold_in(key, data)

    def svi(
        self, model: Program, guide: Program, optimizer: Optimizer, estimator: str = "B", particles: int = 1
    ) -> "_Svi":
        return _Svi(self, model, guide, optimizer, ELBOS[estimator](num_particles=particles))

    def _scored(self, program: Program, values: Mapping[str, Array], *args: Any) -> Any:
        # The seed serves only to reach the error below: a program whose sites all have values draws nothing.
        conditioned = handlers.condition(handlers.seed(program, 0), data=dict(values))
        trace = handlers.trace(conditioned).get_trace(self.ppl, *args)
        sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
        for name, site in sites.items():
            if not site["is_observed"]:
                raise ValueError(f"log_prob needs a value for the site {name!r}; it was given {sorted(values)}")
        return sites


def _abstract(sites: Callable[..., dict[str, Site]], *args: Any) -> dict[str, Site] | None:
    """Return sites(*args) without numbers; None where it looks at them, or a support holds some."""
    found: dict[str, Site] = {}
    try:
        jax.eval_shape(lambda *args: found.update(sites(*args)), *args)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        return None
    supports = [site.fn.support for site in found.values() if site.fn is not None]
    return None if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(supports)) else found


def _site(said: Any) -> Site:
    fn = said["fn"] if said["type"] == "sample" else None
    plates = tuple((frame.dim, frame.size) for frame in reversed(said.get("cond_indep_stack", ())))
    hidden, inner = False, fn
    while inner is not None and not hidden:  # handlers.mask masks the distribution, within to_event and expand too
        hidden, inner = isinstance(inner, distributions.MaskedDistribution), getattr(inner, "base_dist", None)
    observed = bool(said.get("is_observed"))
    return Site(said["type"], fn, said["value"], observed, said.get("scale"), hidden, plates)


class _Svi:
    """`numpyro.infer.SVI` with parameters and optimiser state passed in and out."""

    def __init__(self, engine: NumpyroEngine, model: Program, guide: Program, optimizer: Optimizer, elbo: Any) -> None:
        def bind(program: Program) -> Program:
            def run(params: Params, *args: Any) -> Any:
                return program(engine.ppl, {name: numpyro.param(name, value) for name, value in params.items()}, *args)

            return run

        self._pins = engine.pinned()
        self._optimizer = optimizer
        transformation = optax.GradientTransformation(
            init=lambda params: (),  # never called: the state comes from `init` below
            update=lambda grads, state, params=None: optimizer.update(jnp, grads, state),
        )
        self._svi = SVI(bind(model), bind(guide), transformation, elbo)
        # SVI.init would set this from the sites' constraints; every parameter here is real.
        self._svi.constrain_fn = lambda params: params

    @verb
    def init(self, params: Params, step_size: Array) -> State:
        return {"params": params, "optimizer": self._optimizer.init(jnp, params, step_size)}

    @verb
    def update(self, key: Key, state: State, *args: Any) -> tuple[State, Array]:
        before = SVIState((0, (state["params"], state["optimizer"])), None, key)
        after, loss = self._svi.update(before, state["params"], *args)
        _, (params, optimizer) = after.optim_state
        return {"params": params, "optimizer": optimizer}, loss
