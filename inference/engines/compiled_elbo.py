"""Pyro's ELBOs with loss and gradients compiled into one graph: a drop-in for users of `pyro.infer.SVI`.

    svi = pyro.infer.SVI(model, guide, optim, loss=CompiledELBO(pyro.infer.Trace_ELBO()))

Model and guide are run by Pyro's own handlers and scored by Pyro's own ELBO: once for each shape of the data, to be
recorded (see `torch_graphs`). After that no Python of theirs runs any more, which is most of what a step costs.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from pyro.util import warn_if_nan
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from inference.engines import torch_graphs
from inference.engines.torch_graphs import CompilerError, Draws, Traced, TraceError

Tensor = Any
Program = Callable[..., Any]


class CompiledELBO(ELBO):  # type: ignore[misc]
    """A `Trace_ELBO` or `TraceMeanField_ELBO`, compiled: the same loss and gradients to rounding, from the same draws.

    The first call with new arguments is the library's own, since it makes the parameters; the second compiles, which
    takes 10 s to a minute, and compares. Tensors among the arguments, parameters and the generator are data: their
    values may change, and so may tensors that a program reads from elsewhere, in place. New shapes or types compile
    again; so does another Python number, string or object among the arguments, so pass what changes as a tensor.
    `graphs` holds what was compiled. Where no code can be generated, one warning says so, and the library's own runs.

    Limits. Programs run as they ran when they were recorded: the same sites, branches and handlers around the step.
    They may not look at a tensor's value, nor draw from a generator of their own. Gradients are with respect to
    parameters of Pyro's store, on the CPU. Pyro's validation sees the first two calls alone.

    Raises TypeError for another ELBO or an argument that cannot be compared, TraceError for a program that cannot be
    a graph or that did not repeat itself, and ValueError for tensors elsewhere than on the CPU.
    """

    def __init__(self, elbo: Trace_ELBO) -> None:
        if type(elbo) not in (Trace_ELBO, TraceMeanField_ELBO):
            raise TypeError(f"can compile a Trace_ELBO or a TraceMeanField_ELBO, not a {type(elbo).__name__}")
        super().__init__(num_particles=elbo.num_particles)
        self.elbo = elbo
        self.graphs: dict[Any, _Compiled] = {}
        self._seen: set[Any] = set()
        self._warned = False

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the negative ELBO, in nats. It costs as much as with gradients, and leaves them where they are."""
        found = self._evaluate(self.elbo.loss, model, guide, args, kwargs)
        return found[0].item() if isinstance(found, tuple) else found

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the negative ELBO, in nats, and add its gradients to `.grad` of the unconstrained parameters."""
        found = self._evaluate(self.elbo.loss_and_grads, model, guide, args, kwargs)
        if not isinstance(found, tuple):
            return found
        loss, leaves, gradients = found
        for leaf, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        loss = loss.item()
        warn_if_nan(loss, "loss")
        return loss

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative ELBO, in nats, as a tensor [] to call `backward` on, once differentiable."""
        found = self._evaluate(self.elbo.differentiable_loss, model, guide, args, kwargs)
        if not isinstance(found, tuple):
            return found
        loss, leaves, gradients = found
        return _Known.apply(loss, gradients, *leaves)

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        return self.elbo._get_trace(model, guide, args, kwargs)

    def _evaluate(self, stock: Program, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        """Return loss, parameters and gradients from the graph, or what `stock` returns where there is none yet."""
        values, spec = tree_flatten((args, kwargs))
        inputs = [value.detach() for value in values if torch.is_tensor(value)]
        key = model, guide, spec, tuple(map(torch_graphs.signature, values))
        try:
            first = key not in self._seen
        except TypeError as error:
            kinds = ", ".join(sorted({type(value).__name__ for value in values if not torch.is_tensor(value)}))
            raise TypeError(f"an argument cannot be compared with that of the next call ({kinds}): {error}") from None
        compiled = self.graphs.get(key)
        if first or (compiled and not compiled.fits()):  # its parameters are gone, or have become others
            self._seen.add(key)
            self.graphs.pop(key, None)
            return stock(model, guide, *args, **kwargs)
        if not compiled:
            try:
                torch_graphs.require_compiler()
                compiled = self.graphs[key] = self._compile(model, guide, args, kwargs)
            except CompilerError as error:
                if not self._warned:
                    warnings.warn(f"{error}; so this runs uncompiled", RuntimeWarning, stacklevel=3)
                self._warned = True
                return stock(model, guide, *args, **kwargs)
        return compiled(inputs)

    def _compile(self, model: Program, guide: Program, args: Any, kwargs: Any) -> "_Compiled":
        before = torch.get_rng_state()
        with _Sites() as sites:
            expected = self.elbo.loss(model, guide, *args, **kwargs)
        torch.set_rng_state(before)
        compiled = _Compiled(self.elbo, model, guide, args, kwargs, sites.found)
        inputs = [value.detach() for value in tree_flatten((args, kwargs))[0] if torch.is_tensor(value)]
        loss = compiled(inputs)[0].item()
        torch.set_rng_state(before)
        # Rounding is smaller by far, and what this is for is larger.
        if math.isfinite(expected) and not math.isclose(loss, expected, rel_tol=1e-3, abs_tol=1e-3):
            raise TraceError(
                f"the compiled loss is {loss:.6g}, the program's own {float(expected):.6g}: it depends on more than "
                "its arguments, parameters and draws; do not compile it"
            )
        return compiled


class _Compiled:
    """The graph of one signature: call it with the tensors among the arguments; it draws from torch's generator."""

    def __init__(self, elbo: Any, model: Program, guide: Program, args: Any, kwargs: Any, sites: list[Any]) -> None:
        values, spec = tree_flatten((args, kwargs))
        inputs = [value.detach() for value in values if torch.is_tensor(value)]
        self._names = sorted({name for kind, name, _ in sites if kind == "param"})
        leaves = self._leaves()
        self._signatures = [torch_graphs.signature(leaf) for leaf in leaves]
        if any(tensor.device.type != "cpu" for tensor in (*leaves, *inputs)):
            raise ValueError("an ELBO is compiled for the cpu alone; use the library's own elsewhere")

        def flat(*tensors: Tensor) -> list[Tensor]:
            data = iter(tensors[len(leaves) :])
            args, kwargs = tree_unflatten([next(data) if torch.is_tensor(value) else value for value in values], spec)
            with Draws(next(data)) as draws, pyro.validation_enabled(False), _Sites() as again:
                loss, gradients = loss_and_gradients(elbo, model, guide, args, kwargs)
            if again.found != sites:
                changed = ", ".join(sorted({name for _, name, _ in set(again.found) ^ set(sites)})) or "their order"
                raise TraceError(f"sites differ from one call to the next ({changed}); do not compile this program")
            return [loss, draws.state, *(gradients.get(leaf) for leaf in leaves)]

        # The parameters themselves, not copies: programs find them in the store, in a module, wherever they look.
        self.graph: Traced = torch_graphs.trace(flat, [*leaves, *inputs, torch.get_rng_state()])
        self.graph.compile()

    def __call__(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        leaves = self._leaves()
        loss, state, *gradients = self.graph([*leaves, *inputs, torch.get_rng_state()])
        torch.set_rng_state(state)
        return loss, leaves, gradients

    def fits(self) -> bool:
        """Say whether the store still holds these parameters, in these shapes."""
        store = pyro.get_param_store()
        if not all(name in store for name in self._names):
            return False
        return [torch_graphs.signature(leaf) for leaf in self._leaves()] == self._signatures

    def _leaves(self) -> list[Tensor]:
        # Said aloud, so that whoever watches the step, as SVI does, hears which parameters it has.
        return [pyro.param(name).unconstrained() for name in self._names]


def loss_and_gradients(
    elbo: Any, model: Program, guide: Program, args: Any, kwargs: Any
) -> tuple[Tensor, dict[Tensor, Tensor | None]]:
    """Return the negative ELBO as a tensor [], and its gradient for each unconstrained parameter that was met.

    What `elbo.loss_and_grads` does, but for making a number of the loss: within a record there is none.
    """
    loss: Any = 0.0
    surrogate: Any = 0.0
    with poutine.trace(param_only=True) as capture:
        for model_trace, guide_trace in elbo._get_traces(model, guide, args, kwargs):
            with _NoNumbers():
                one, its_surrogate = elbo._differentiable_loss_particle(model_trace, guide_trace)
            loss = loss + one / elbo.num_particles
            surrogate = surrogate + its_surrogate / elbo.num_particles
    met = [site["value"].unconstrained() for site in capture.trace.nodes.values()]
    leaves = list(dict.fromkeys(leaf for leaf in met if leaf.requires_grad))
    if not leaves or not getattr(surrogate, "requires_grad", False):
        return torch.as_tensor(loss), {}
    gradients = torch.autograd.grad(surrogate, leaves, allow_unused=True)
    return loss, dict(zip(leaves, gradients, strict=True))


class _NoNumbers(TorchFunctionMode):  # type: ignore[misc]
    """Leave the tensor where Pyro's estimators make a number of it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0].detach() if func is torch.Tensor.item else func(*args, **(kwargs or {}))


class _Sites(Messenger):  # type: ignore[misc]
    """Write down the sites that programs visit: kind, name and shape, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def _pyro_post_sample(self, message: Any) -> None:
        self.found.append(("sample", message["name"], getattr(message["value"], "shape", None)))

    def _pyro_post_param(self, message: Any) -> None:
        self.found.append(("param", message["name"], message["value"].shape))


class _Known(torch.autograd.Function):  # type: ignore[misc]
    """A loss whose gradients with respect to some leaves are known already."""

    @staticmethod
    def forward(context: Any, loss: Tensor, gradients: list[Tensor | None], *leaves: Tensor) -> Tensor:
        context.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(context: Any, above: Tensor) -> Any:
        return None, None, *(None if g is None else above * g for g in context.gradients)
