"""Torch functions as compiled graphs: traced once for each shape of their arguments, then run by generated C++.

A function is run under `make_fx`, which records every operation that reaches torch's dispatcher, whatever Python made
it: Pyro's handlers, autograd's backward pass, an optimiser. Inductor turns the record into one graph. What Python
decides by looking at values is not in the record: a branch, a loop or a number stays what it was when it was traced.

Noise is data: a random operation takes a generator's state and returns the next one. So the order of draws is an order
that no compiler may change, and the same state gives the same draws as without a graph, bit for bit.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, ClassVar

import torch
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from inference.engines import torch_settings

Tensor = Any

WRITTEN_OUT = 1500  # operations; a loop within a loop that has no more is part of its graph, turn after turn

FRESH = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)

_depth: ContextVar[int] = ContextVar("depth", default=0)  # of records within records


class TraceError(RuntimeError):
    """A function cannot be a graph; the message says why, and what to do."""


class CompilerError(RuntimeError):
    """No code can be generated for a graph; the message says why."""


class Compiled:
    """`function` as a graph, compiled at the first call with new shapes, types or Python values.

    Its arguments are tensors, ints, and dicts, tuples and lists of them. Tensors and ints (keys) are data, and other
    values of theirs compile nothing; anything else is part of the code. No input is changed. `graphs` holds what was
    compiled, by signature. Raises TraceError, and CompilerError: what bears this name does not run otherwise.
    """

    seconds: ClassVar[float] = 0.0  # of this process, for all of them: recording and compiling

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.graphs: dict[Any, tuple[Traced, Any]] = {}

    def __call__(self, *args: Any) -> Any:
        if tracing():  # part of a larger graph
            return self.function(*args)
        leaves, spec = flatten(args)
        leaves = [torch.tensor(leaf) if type(leaf) is int else leaf for leaf in leaves]
        key = spec, tuple(map(signature, leaves))
        inputs = [leaf.detach() for leaf in leaves if torch.is_tensor(leaf)]
        if key not in self.graphs:
            start = time.perf_counter()
            self.graphs[key] = self._trace(leaves, spec, inputs)
            Compiled.seconds += time.perf_counter() - start
        graph, structure = self.graphs[key]
        return tree_unflatten(graph(inputs), structure)

    def _trace(self, leaves: list[Any], spec: Any, inputs: list[Tensor]) -> tuple["Traced", Any]:
        structure = None

        def flat(*tensors: Tensor) -> list[Any]:
            nonlocal structure
            data = iter(tensors)
            args = tree_unflatten([next(data) if torch.is_tensor(leaf) else leaf for leaf in leaves], spec)
            outputs, structure = flatten(self.function(*args))
            return outputs

        graph = trace(flat, inputs)
        if not graph.loops:  # around a loop there is little to gain
            graph.compile()
        return graph, structure


@dataclass(eq=False)
class Traced:
    """The graph of a function of tensors, to be called with a list of them; it returns the list of the outputs."""

    module: GraphModule  # the record
    inputs: list[Tensor]  # those it was recorded with
    captured: list[Tensor]  # that it was not given: they are read again at every call, so a change in place is seen
    outputs: list[tuple[str, Any]]  # where each comes from: ("made", at), ("input", at) or ("constant", value)
    shapes: list[Any]  # shape and type of each, (None, None) for a constant

    def __post_init__(self) -> None:
        self._run: Callable[..., Any] = self.module.forward

    def __call__(self, inputs: Sequence[Tensor], captured: Sequence[Tensor] | None = None) -> list[Any]:
        given = [*inputs, *(self.captured if captured is None else captured)]
        with torch.no_grad():
            made = self._run(*given)
        source = {"made": made, "input": given}
        return [value if kind == "constant" else source[kind][value] for kind, value in self.outputs]

    @property
    def loops(self) -> bool:
        """Whether it calls graphs of its own, turn by turn."""
        return any(node.target is torch.ops.traced.loop.default for node in self.module.graph.nodes)

    def compile(self) -> None:
        """Generate code for the graph. Raises CompilerError; torch's own kernels then still run it."""
        torch_settings.name_cache()
        from torch._inductor import compile  # seconds, which who never compiles is spared

        try:
            # A record that is under way is none of the compiler's business.
            with torch.no_grad(), _disable_current_modes():
                try:
                    self._run = compile(self.module, self.inputs)
                except Exception as error:
                    if not torch_settings.drop_half_written(error):
                        raise
                    self._run = compile(self.module, self.inputs)
        except Exception as error:  # whatever is wrong with the compiler, torch itself still works
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise CompilerError(f"torch cannot compile here: {reason}") from error
        finally:
            self.inputs = []


@cache
def lack() -> str:
    """Say why graphs cannot be compiled here, after compiling the smallest; "" where they can."""
    try:
        trace(lambda x: [x + 1.0], [torch.zeros(())]).compile()
    except CompilerError as error:
        return str(error)
    return ""


def require_compiler() -> None:
    """Raise CompilerError where no graph can be compiled here."""
    if lack():
        raise CompilerError(lack())


def tracing() -> bool:
    """Say whether operations are being recorded."""
    return _depth.get() > 0


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Return the leaves of dicts, tuples and lists, and their structure: as in jax, a dict's names are sorted.

    So two dicts that hold the same are the same, in whichever order they were filled: a step's, or a checkpoint's.
    """
    return tree_flatten(_in_order(tree))


def _in_order(tree: Any) -> Any:
    def dicts(value: Any) -> Any:
        return {name: _in_order(value[name]) for name in sorted(value)} if isinstance(value, dict) else value

    return tree_map(dicts, tree, is_leaf=lambda value: isinstance(value, dict))


def signature(value: Any) -> Any:
    """Return what a graph depends on: a tensor's shape, type, strides and device, anything else itself."""
    if torch.is_tensor(value):
        return value.shape, value.dtype, value.stride(), value.device
    return type(value), value


def trace(function: Callable[..., list[Any]], inputs: list[Tensor]) -> Traced:
    """Record function(*inputs), which returns a list of tensors and other values. Raises TraceError."""
    outputs: list[Any] = []

    def tensors(*args: Tensor) -> list[Tensor]:
        outputs[:] = function(*args)
        return [value for value in outputs if torch.is_tensor(value)]

    token = _depth.set(_depth.get() + 1)
    try:
        with Draws(None), torch.enable_grad():
            module = make_fx(tensors)(*inputs)
    except RuntimeError as error:
        if "get value out of a tracing tensor" not in str(error):
            raise
        raise TraceError(
            "the program looks at the value of a tensor (in an if, a loop, float() or .item()), which a graph cannot "
            "hold; use torch.where, or do not compile it"
        ) from error
    finally:
        _depth.reset(token)
    captured = _lift(module)
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        node.replace_all_uses_with(node.args[0])  # gradients are in the record: nothing is left to be cut off
        module.graph.erase_node(node)
    module.graph = fx_graph_cse(module.graph)
    sources = _keep_what_is_made(module.graph, outputs)
    module.graph.eliminate_dead_code()
    module.recompile()
    shapes = [(value.shape, value.dtype) if torch.is_tensor(value) else (None, None) for value in outputs]
    return Traced(module, [value.detach() for value in (*inputs, *captured)], captured, sources, shapes)


class Draws(TorchDispatchMode):  # type: ignore[misc]
    """While it is active, random operations read and advance `state` [n_bytes, uint8], a CPU generator's.

    Without a state they raise TraceError: a draw from nowhere would be the same at every call.
    """

    def __init__(self, state: Tensor | None) -> None:
        super().__init__()
        self.state = state

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if self.state is None:
            raise TraceError(f"{func} draws without a key")
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            raise TraceError(f"{func} has a generator of its own, which a graph cannot hold")
        if func is torch.ops.aten.bernoulli.default and args[0].dtype == torch.float32 and args[0].is_contiguous():
            # What torch's kernel does, one number at a time: the same draws, five times faster.
            uniform, self.state = _as_data(torch.ops.aten.rand.default)[0](self.state, args[0].shape)
            return (uniform < args[0]).to(args[0].dtype)
        operation, in_place = _as_data(func)
        kwargs = {name: value for name, value in kwargs.items() if name != "generator"}
        *values, self.state = operation(self.state, *args, **kwargs)
        if in_place:
            return args[0].copy_(values[0])
        return values[0] if len(values) == 1 else tuple(values)


def seeded(key: Tensor) -> Tensor:
    """Return the state of a CPU generator that was seeded with the key []."""
    return torch.ops.traced.seeded(key)


def loop(
    step: Callable[..., Any], carry: Any, xs: tuple[Any, ...], count: Tensor | None = None
) -> tuple[Any, Any] | None:
    """Fold step(carry, x) -> (carry, y) over the first `count` items of xs, in a function that is being recorded.

    The outermost loop is a graph that is run turn by turn; so is one within it, unless it is small: then None is
    returned, and the caller may write it out. y is a tuple of scalars or None. Raises TraceError where the carry
    changes its structure, shapes or types.
    """
    leaves, spec = flatten(carry)
    columns = [torch.stack(list(x)) if isinstance(x, list) else x for x in xs]
    held = [i for i, leaf in enumerate(leaves) if torch.is_tensor(leaf)]
    y_spec = None

    def turn(*tensors: Tensor) -> list[Any]:
        nonlocal y_spec
        before = list(leaves)
        for i, tensor in zip(held, tensors, strict=False):
            before[i] = tensor
        carry, y = step(tree_unflatten(before, spec), tensors[len(held) :])
        after, after_spec = flatten(carry)
        if after_spec != spec or [signature(leaf)[:2] for leaf in after] != [signature(leaf)[:2] for leaf in before]:
            raise TraceError("what a loop carries must keep its structure, shapes and types")
        ys, y_spec = tree_flatten(y)
        return [after[i] for i in held] + ys

    # Detached, they are other objects: a tensor that the step also reads by itself is not what the loop carries.
    graph = trace(turn, [leaves[i].detach() for i in held] + [column[0].detach() for column in columns])
    if count is None and _depth.get() > 1 and len(columns[0]) * len(graph.module.graph.nodes) <= WRITTEN_OUT:
        return None
    captured = graph.captured
    turns, name = _Loop.of(graph, len(held), len(graph.outputs))
    made = iter(torch.ops.traced.loop([leaves[i] for i in held] + columns + captured, count, name))
    for position, i in enumerate(held):
        if not turns.kept(position):
            leaves[i] = next(made)
    ys = [_repeated(x, columns[0]) if kind == "constant" else next(made) for kind, x in turns.ys]
    return tree_unflatten(leaves, spec), tree_unflatten(ys, y_spec)


class _Loop:
    """A graph that is run turn by turn: its first inputs and outputs are the carry, the others x and y.

    Rows that a turn puts into a part of the carry are put there in place, so that they cost the same in a large one.
    """

    known: ClassVar[dict[str, "_Loop"]] = {}

    def __init__(self, graph: Traced, n_carry: int, n_outputs: int) -> None:
        self.graph, self.n_carry, self._n_captured = graph, n_carry, len(graph.captured)
        self.ys = graph.outputs[n_carry:n_outputs]
        self._puts = _take_out_puts(graph, n_carry)  # whose indices and rows are further outputs
        self._end = n_outputs
        graph.compile()
        graph.captured = []  # handed in at every call

    @classmethod
    def of(cls, graph: Traced, n_carry: int, n_outputs: int) -> tuple["_Loop", str]:
        """Return the loop and its name, which says all that it computes: inductor caches on disk what names it."""
        inputs = [signature(value) for value in graph.inputs]
        text = repr((graph.module.code, graph.outputs, inputs, n_carry))
        name = hashlib.sha256(text.encode()).hexdigest()
        if name not in cls.known:
            cls.known[name] = cls(graph, n_carry, n_outputs)
        return cls.known[name], name

    def kept(self, position: int) -> bool:
        """Say whether a part of the carry is the same in every turn."""
        return self.graph.outputs[position] == ("input", position) and position not in self._puts

    def run(self, inputs: list[Tensor], count: Tensor | None) -> list[Tensor]:
        """Return what of the carry changes, and the stacked y, 0 after the first `count`."""
        carry, xs, captured = self._sorted(inputs)
        carry = [value.clone() if i in self._puts else value for i, value in enumerate(carry)]
        ys = []
        for row in islice(zip(*(x.unbind() for x in xs), strict=True), None if count is None else int(count)):
            outputs = self.graph([*carry, *row], captured)
            carry = outputs[: self.n_carry]
            puts = iter(outputs[self._end :])
            for position in self._puts:
                carry[position].index_copy_(0, next(puts), next(puts))
            ys.append([value for value in outputs[self.n_carry : self._end] if torch.is_tensor(value)])
        # An operation's outputs may be neither inputs nor one another.
        after = [value if i in self._puts else value.clone() for i, value in enumerate(carry) if not self.kept(i)]
        return after + [filled_up(torch.stack(column), len(xs[0])) for column in zip(*ys, strict=True)]

    def empty(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return tensors of the same shapes and types."""
        carry, xs, _ = self._sorted(inputs)
        after = [torch.zeros_like(value) for i, value in enumerate(carry) if not self.kept(i)]
        ys = [(shape, dtype) for shape, dtype in self.graph.shapes[self.n_carry : self._end] if shape is not None]
        return after + [xs[0].new_zeros((len(xs[0]), *shape), dtype=dtype) for shape, dtype in ys]

    def _sorted(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        end = len(inputs) - self._n_captured
        return inputs[: self.n_carry], inputs[self.n_carry : end], inputs[end:]


def filled_up(column: Tensor, length: int) -> Tensor:
    """Return a column with zeros after it, up to a length."""
    rest = column.new_zeros(length - len(column), *column.shape[1:])
    return torch.cat([column, rest]) if len(rest) else column


def _repeated(value: Any, column: Tensor) -> Tensor | None:
    return None if value is None else torch.full((len(column),), value)


def _lift(module: GraphModule) -> list[Tensor]:
    """Turn tensors that the record holds into inputs of it, single numbers into constants; return the former."""
    captured: list[Tensor] = []
    graph = module.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][-1:]
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, node.target)
        # What is made within the function, torch.tensor(0.5), cannot change; what it was not given, may.
        made = all(user.target in FRESH for user in node.users)
        if made and tensor.numel() == 1:
            args, options = (list(tensor.shape), tensor.item()), {"dtype": tensor.dtype, "device": tensor.device}
            with graph.inserting_before(node):
                new = graph.call_function(torch.ops.aten.full.default, args, options)
        else:
            with graph.inserting_after(last[-1]) if last else graph.inserting_before(next(iter(graph.nodes))):
                new = graph.placeholder(f"captured_{len(captured)}")
            last.append(new)
            captured.append(tensor)
        new.meta = node.meta
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    return captured


def _keep_what_is_made(graph: Graph, outputs: list[Any]) -> list[tuple[str, Any]]:
    """Take out of the graph the outputs that are inputs; return where each output comes from."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    final = next(node for node in graph.nodes if node.op == "output")
    nodes = iter(final.args[0])
    sources: list[tuple[str, Any]] = []
    made: list[Any] = []
    for value in outputs:
        node = next(nodes) if torch.is_tensor(value) else None
        if node is None:
            sources.append(("constant", value))
        elif node in inputs:
            sources.append(("input", inputs.index(node)))
        else:
            sources.append(("made", len(made)))
            made.append(node)
    final.args = (made,)
    return sources


def _take_out_puts(graph: Traced, n_carry: int) -> list[int]:
    """Take out of a turn what only puts rows into its carry, and has them as further outputs: indices and rows.

    Returns the positions of these parts of the carry, whose output is now their input. Nothing else of the turn may
    still see such a part after it: no output, and no view of it.
    """
    inputs = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    final = next(node for node in graph.module.graph.nodes if node.op == "output")
    made = list(final.args[0])
    found = []
    for position in range(n_carry):
        kind, place = graph.outputs[position]
        if kind != "made" or made[place].target is not torch.ops.aten.index_copy.default:
            continue
        put, part = made[place], inputs[position]
        views = any(each.alias_info for user in part.users if user is not put for each in user.target._schema.returns)
        if put.args[:2] != (part, 0) or len(put.users) > 1 or views or ("input", position) in graph.outputs:
            continue
        indices, rows = put.args[2:]
        graph.outputs[position] = ("input", position)
        for node in (indices, rows):
            if node not in inputs and node not in made:
                made.append(node)
            source = ("input", inputs.index(node)) if node in inputs else ("made", made.index(node))
            graph.outputs.append(source)
        found.append(position)
    if found:
        # What is not asked for any more leaves a gap: the others move up.
        asked = sorted({place for kind, place in graph.outputs if kind == "made"})
        moved = {place: number for number, place in enumerate(asked)}
        graph.outputs[:] = [(kind, moved[x] if kind == "made" else x) for kind, x in graph.outputs]
        final.args = ([made[place] for place in asked],)
        graph.module.graph.eliminate_dead_code()
        graph.module.recompile()
    return found


# Operations of our own. Their names say what they do: inductor's cache on disk is keyed by them.

_library = torch.library.Library("traced", "DEF")
_library.define("seeded(Tensor key) -> Tensor")
_library.define("loop(Tensor[] inputs, Tensor? count, str name) -> Tensor[]")


@torch.library.impl(_library, "seeded", "CompositeExplicitAutograd")  # type: ignore[untyped-decorator]
def _seeded(key: Tensor) -> Tensor:
    return torch.Generator().manual_seed(int(key)).get_state()


@torch.library.register_fake("traced::seeded", lib=_library)  # type: ignore[untyped-decorator]
def _(key: Tensor) -> Tensor:
    return key.new_empty(torch.default_generator.get_state().shape, dtype=torch.uint8)


@torch.library.impl(_library, "loop", "CompositeExplicitAutograd")  # type: ignore[untyped-decorator]
def _loop(inputs: list[Tensor], count: Tensor | None, name: str) -> list[Tensor]:
    turns = _Loop.known[name]
    return (
        turns.empty(inputs) if tracing() else turns.run(inputs, count)
    )  # in a record, only what it looks like matters


@torch.library.register_fake("traced::loop", lib=_library)  # type: ignore[untyped-decorator]
def _(inputs: list[Tensor], count: Tensor | None, name: str) -> list[Tensor]:
    return _Loop.known[name].empty(inputs)


@cache
def _as_data(operation: Any) -> tuple[Any, bool]:
    """Return a random operation as a function (state, ...) -> (..., state), and whether it was one in place."""
    packet, overload = operation._schema.name.removeprefix("aten::"), operation._overloadname
    in_place = packet.endswith("_")
    name = f"{packet}_{overload or 'default'}"
    text = re.sub(r"(, )?(\*, )?Generator\? generator(=None)?", "", str(operation._schema)).replace("(a!)", "")
    arguments, _, returns = text[text.index("(") + 1 :].rpartition(") -> ")
    _library.define(f"{name}(Tensor state, {arguments}) -> ({returns.strip('()')}, Tensor)")

    def draw(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        value = operation(args[0].clone(), *args[1:], **kwargs) if in_place else operation(*args, **kwargs)
        return value if isinstance(value, tuple) else (value,)

    def run(state: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        generator = torch.default_generator
        before = generator.get_state()
        generator.set_state(state)
        try:
            return (*draw(*args, **kwargs), generator.get_state())
        finally:
            generator.set_state(before)

    def fake(state: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return (*draw(*args, **kwargs), torch.empty_like(state))

    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"traced::{name}", fake, lib=_library)
    return getattr(torch.ops.traced, name).default, in_place
