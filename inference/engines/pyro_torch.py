"""The Pyro / torch engine: with its three neighbours in this folder, the only file that names torch and pyro."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import torch
from pyro import distributions, poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import PyroOptim
from torch.nn import functional

from inference.base import Array, Key, Optimizer, Params, Program, Site, State
from inference.engines import torch_graphs, torch_settings
from inference.engines.compiled_elbo import loss_and_gradients
from inference.engines.pins import Pins, verb
from inference.engines.torch_graphs import Compiled, Draws
from inference.optim import apply

ELBOS = {"A": Trace_ELBO, "B": TraceMeanField_ELBO}
NN = SimpleNamespace(
    relu=torch.relu,
    elu=functional.elu,
    softplus=functional.softplus,
    sigmoid=torch.sigmoid,
    softmax=partial(torch.softmax, dim=-1),
    logsumexp=partial(torch.logsumexp, dim=-1),
    linear=lambda x, w, b: torch.matmul(x, w) + b,
)


class Reparameterised(distributions.TorchDistribution):  # type: ignore[misc]
    """See `models.base.Ppl.reparameterised`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, law: Any, noise: Any, path: Callable[[Array], Array]) -> None:
        self._law, self._noise, self._path = law, noise, path
        super().__init__(torch.Size(law.batch_shape), torch.Size(law.event_shape), validate_args=False)

    support = property(lambda self: self._law.support)

    def rsample(self, sample_shape: Any = ()) -> Array:
        return self._path(self._noise.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Array) -> Array:
        return self._law.log_prob(value)


PPL: Any = SimpleNamespace(
    dist=distributions,
    xp=torch,
    nn=NN,
    sample=pyro.sample,
    plate=pyro.plate,
    condition=poutine.condition,
    scale=poutine.scale,
    factor=pyro.factor,
    biject_to=torch.distributions.biject_to,
    kl_divergence=torch.distributions.kl_divergence,
    stop=torch.Tensor.detach,
    reparameterised=Reparameterised,
)


class PyroEngine:
    """See `inference.base.Engine`. A key is an int, within a compiled function a tensor [].

    `compiled`: what `compile` is given becomes one graph, Pyro's handlers, gradients, optimiser and all. It takes 10 s
    to a minute, and gives the same numbers to rounding, from the same draws. Raises RuntimeError where torch has no
    such device, CompilerError where no code can be generated here, ValueError where `device` cannot be compiled for.
    """

    name = "pyro"
    compiling_seconds = property(lambda self: Compiled.seconds)

    def __init__(self, device: str = "cpu", threads: int = 1, compiled: bool = False) -> None:
        self.device = torch.device(device)
        torch.zeros(1, device=self.device)  # fails here, not in the middle of a run
        if compiled and self.device.type != "cpu":
            raise ValueError(f"the pyro engine compiles for the cpu alone, not for {device!r}")
        self._pins = Pins(partial(torch_settings.enter, device=self.device, threads=threads))
        self.compiled = compiled
        if compiled:
            with self._pins:
                torch_graphs.require_compiler()
        cuda = self.device.type == "cuda"
        self.generator = torch.cuda.default_generators[self.device.index or 0] if cuda else torch.default_generator
        self.ppl = PPL

    def pinned(self) -> Pins:
        return self._pins

    @verb
    def draw(self, key: Key, program: Program, *args: Any) -> Params:
        with self._seeded(key):
            trace = poutine.trace(program).get_trace(self.ppl, *args)
        return {name: site["value"] for name, site in _samples(trace).items()}

    @verb
    def log_prob(self, program: Program, values: Mapping[str, Array], *args: Any) -> Array:
        total: Any = 0.0
        for site in _scored(self.ppl, program, values, *args).values():
            total = total + site["scale"] * site["fn"].log_prob(site["value"])
        return total

    @verb
    def conditional(self, program: Program, site: str, values: Mapping[str, Array], *args: Any) -> Any:
        return _scored(self.ppl, program, values, *args)[site]["fn"]

    @verb
    def sites(self, key: Key, program: Program, values: Mapping[str, Array], *args: Any) -> dict[str, Site]:
        # In a parameter store of its own: a program's own parameters are seen, and not kept.
        with self._seeded(key), pyro.get_param_store().scope():
            trace = poutine.trace(poutine.condition(program, data=dict(values))).get_trace(self.ppl, *args)
        said = {name: site for name, site in trace.nodes.items() if site["type"] not in ("args", "return")}
        return {name: _site(site) for name, site in said.items() if not poutine.util.site_is_subsample(site)}

    def outline(self, key: Key, program: Program, *args: Any) -> dict[str, Site]:
        return self.sites(key, program, {}, *args)

    def value_and_grad(self, function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        return self._pins.around(_differentiated(function, has_aux))

    @verb
    def scan(
        self, step: Callable[..., Any], carry: Any, xs: tuple[Array, ...], count: Array | None = None
    ) -> tuple[Any, Any]:
        looped = torch_graphs.loop(step, carry, xs, count) if torch_graphs.tracing() else None
        return _folded(step, carry, xs, count) if looped is None else looped

    def compile(self, function: Callable[..., Any], consumed: bool = False) -> Callable[..., Any]:
        return self._pins.around(Compiled(function) if self.compiled else function)

    @verb
    def at_once(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    @verb
    def put(self, array: Array, indices: Array, rows: Array) -> Array:
        return array.index_copy(0, indices, rows)

    @verb
    def array(self, value: Any) -> Array:
        value = np.asarray(value)
        kind = np.int64 if value.dtype.kind in "iu" else np.float32
        return torch.tensor(value.astype(kind), device=self.device)

    @verb
    def numpy(self, value: Array) -> Any:
        return torch.as_tensor(value).detach().cpu().numpy().copy()

    def key(self, seed: int) -> Key:
        return _mix(seed)

    def split(self, key: Key, count: int = 2) -> Any:
        if torch_graphs.tracing():
            return self.fold_in(key, torch.arange(count))
        return [self.fold_in(key, i) for i in range(count)]

    def fold_in(self, key: Key, data: Any) -> Key:
        if torch_graphs.tracing():
            return _mix_tensor(torch.as_tensor(key) ^ _mix_tensor(torch.as_tensor(data) + 1))
        return _mix(key ^ _mix(int(data) + 1))

    def svi(
        self, model: Program, guide: Program, optimizer: Optimizer, estimator: str = "B", particles: int = 1
    ) -> "_Svi":
        return _Svi(self, model, guide, optimizer, ELBOS[estimator](num_particles=particles))

    @contextmanager
    def _seeded(self, key: Key) -> Iterator[None]:
        """Run programs from a key, and leave torch's global generators as they were."""
        if torch_graphs.tracing():
            with Draws(torch_graphs.seeded(torch.as_tensor(key))):
                yield
            return
        # torch.manual_seed would visit every kind of device torch knows: a quarter of a step's time here.
        before = self.generator.get_state()
        self.generator.manual_seed(key)
        try:
            yield
        finally:
            self.generator.set_state(before)


def _differentiated(function: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    """Return f(argument, ...) -> (value, gradient) of a scalar function of its first argument."""

    def run(argument: Any, *args: Any) -> Any:
        named = isinstance(argument, dict)
        given = argument if named else {"": argument}
        leaves = {name: value.detach().requires_grad_() for name, value in given.items()}
        result = function(leaves if named else leaves[""], *args)
        found: list[Any] = [*result] if has_aux else [result]
        # As in jax, what the function does not depend on has a gradient of zero.
        each = torch.autograd.grad(found[0], list(leaves.values()), allow_unused=True, materialize_grads=True)
        grads = dict(zip(leaves, each, strict=True)) if named else each[0]
        found = [one.detach() if torch.is_tensor(one) else one for one in found]
        return (tuple(found) if has_aux else found[0]), grads

    return run


def _folded(step: Callable[..., Any], carry: Any, xs: tuple[Array, ...], count: Array | None = None) -> tuple[Any, Any]:
    ys: list[Any] = []
    for x in islice(zip(*xs, strict=True), None if count is None else int(count)):
        carry, y = step(carry, x)
        ys.append(y)
    if ys[0] is None:
        return carry, None
    columns = [torch.stack([torch.as_tensor(v) for v in column]) for column in zip(*ys, strict=True)]
    return carry, type(ys[0])(*(torch_graphs.filled_up(column, len(xs[0])) for column in columns))


def _scored(ppl: Any, program: Program, values: Mapping[str, Array], *args: Any) -> Any:
    trace = poutine.trace(poutine.condition(program, data=dict(values))).get_trace(ppl, *args)
    sites = _samples(trace)
    for name, site in sites.items():
        if not site["is_observed"]:
            raise ValueError(f"log_prob needs a value for the site {name!r}; it was given {sorted(values)}")
    return sites


class _Svi:
    """`pyro.infer.SVI` with parameters and optimiser state passed in and out.

    Each step runs in a parameter store of its own, so nothing leaks from one method into another. Within a compiled
    function it is the same SVI, ELBO and handlers that run: once, to be recorded.
    """

    def __init__(self, engine: PyroEngine, model: Program, guide: Program, optimizer: Optimizer, elbo: Any) -> None:
        def bind(program: Program) -> Program:
            def run(params: Params, *args: Any) -> Any:
                # Detached: the store would turn on requires_grad in the caller's own state.
                named = {name: pyro.param(name, value.detach()) for name, value in params.items()}
                return program(engine.ppl, named, *args)

            return run

        self._engine, self._pins = engine, engine.pinned()
        self._optimizer = optimizer
        self._optim = _ExplicitOptim(optimizer)
        self._elbo = elbo
        self._loss: Any = None
        self._svi = SVI(bind(model), bind(guide), self._optim, elbo.loss, self._loss_and_grads)

    @verb
    def init(self, params: Params, step_size: Array) -> State:
        return {"params": params, "optimizer": self._optimizer.init(torch, params, step_size)}

    @verb
    def update(self, key: Key, state: State, *args: Any) -> tuple[State, Array]:
        self._optim.state = state
        with self._engine._seeded(key), pyro.get_param_store().scope(), warnings.catch_warnings():
            # A run that turns non-finite is stopped, and said, by whoever takes the steps.
            warnings.filterwarnings("ignore", "Encountered NaN")
            loss = self._svi.step(state["params"], *args)
        if torch_graphs.tracing():
            loss, self._loss = self._loss, None
        return self._optim.state, loss

    def _loss_and_grads(self, model: Program, guide: Program, *args: Any) -> Any:
        if not torch_graphs.tracing():
            return self._elbo.loss_and_grads(model, guide, *args)
        # SVI makes a number of what it is returned, and within a record there is none.
        self._loss, gradients = loss_and_gradients(self._elbo, model, guide, args, {})
        for leaf, gradient in gradients.items():
            leaf.grad = gradient
        return 0.0


class _ExplicitOptim(PyroOptim):  # type: ignore[misc]
    """What `SVI.step` calls with the parameters and their gradients: our pure optimiser instead of a torch one."""

    state: State

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(torch.optim.SGD, {})
        self._optimizer = optimizer

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        store, values = pyro.get_param_store(), self.state["params"]
        # A parameter the guide or model did not reach in this step has no gradient to follow.
        reached = {store.param_name(p): p.grad for p in params if p.grad is not None}
        grads = {name: reached[name] if name in reached else torch.zeros_like(values[name]) for name in values}
        updates, optimizer = self._optimizer.update(torch, grads, self.state["optimizer"])
        self.state = {"params": apply(values, updates), "optimizer": optimizer}


def _samples(trace: Any) -> dict[str, Any]:
    subsample = poutine.util.site_is_subsample
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not subsample(site)}


def _site(said: Any) -> Site:
    fn = said["fn"] if said["type"] == "sample" else None
    plates = tuple((frame.dim, frame.size) for frame in said["cond_indep_stack"])
    hidden, inner = said["mask"] is not None, fn
    while inner is not None and not hidden:  # a mask may be within to_event and expand
        hidden, inner = isinstance(inner, distributions.MaskedDistribution), getattr(inner, "base_dist", None)
    return Site(said["type"], fn, said["value"], said["is_observed"], said["scale"], hidden, plates)


def _mix(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): a bijection that scatters nearby integers.

    Keys stay below 2^63, as torch's seeds must.
    """
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 1


def _mix_tensor(value: Array) -> Array:
    """Do as `_mix` does, in int64: it wraps around at 2^64 as well, and a right shift has to drop the sign's copies."""

    def shifted(value: Array, by: int) -> Array:
        return (value >> by) & ((1 << (64 - by)) - 1)

    value = value + (0x9E3779B97F4A7C15 - 2**64)
    value = (value ^ shifted(value, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    value = (value ^ shifted(value, 27)) * (0x94D049BB133111EB - 2**64)
    return shifted(value ^ shifted(value, 31), 1)
