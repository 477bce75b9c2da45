"""The model that a theta is of, at the sizes that are read off its shapes.

Which axis is which size is learnt from the model: built anew with one size a step up, it has a length that moves. The
length that is given there tells the size, where no other size moves it. A transposed array tells too, so that it can be
called transposed.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np

from comparisons.errors import DataError, FlagError, in_one_line
from inference.base import pick
from models.base import Model

FIRST = (6, 2, 4)  # n_x, n_latent, n_hidden that a model is first built at
Shapes = Mapping[str, tuple[int, ...]]


def sized(name: str, build: Callable[[int, int, int], Model], params: Mapping[str, Any], n_x: int = 0) -> Model:
    """Return the model whose parameters are `params`: arrays by `theta.name`, and `phi.name` where there is a phi.

    `build` is called as (n_x, n_latent, n_hidden); without n_x that is read off too. A size that moves no length stays
    small. Raises what `hold_shapes` does, and FlagError where it cannot be built at small sizes.
    """
    first = (n_x or FIRST[0], *FIRST[1:])
    told = [{n_x} if n_x else set[int](), set[int](), set[int]()]
    base = shapes_of(name, build(*first), params)
    moved = [shapes_of(name, build(*(n + (i == j) for j, n in enumerate(first))), params) for i in range(3)]
    for key, shape in base.items():
        given = np.shape(params.get(key, ()))
        for axis, length in enumerate(shape if len(shape) == len(given) else ()):
            steps = [other[key][axis] - length for other in moved]
            for i in [i for i in range(3) if steps[i] and np.count_nonzero(steps) == 1 and not (n_x and i == 0)]:
                lengths = (given[axis], given[::-1][axis])
                told[i] |= {first[i] + (n - length) // steps[i] for n in lengths if (n - length) % steps[i] == 0}
    candidates: list[Model] = []
    for sizes in product(*(sorted(n for n in values if n > 0) or [first[i]] for i, values in enumerate(told))):
        with suppress(FlagError):  # sizes that a model of a user's own may not have
            candidates.append(build(*sizes))
    model = max(candidates or [build(*first)], key=lambda one: _alike(shapes_of(name, one, params), params))
    hold_shapes(name, model, params)
    return model


def hold_shapes(name: str, model: Model, params: Mapping[str, Any]) -> None:
    """Raise DataError, in a line, unless `theta.*` and `phi.*` have a model's names and shapes."""
    shapes = shapes_of(name, model, params)
    for group in ("theta", "phi")[: 1 + any(key.startswith("phi.") for key in params)]:
        want, have = {**pick({**shapes}, group)}, pick({**params}, group)
        wrong = [f"lacks {', '.join(sorted(want.keys() - have.keys()))}"] if want.keys() - have.keys() else []
        wrong += [f"has {', '.join(sorted(have.keys() - want.keys()))} beyond"] if have.keys() - want.keys() else []
        if wrong:
            raise DataError(f"{group} {' and '.join(wrong)}; that of {name} is of {', '.join(want)}")
    sizes = [f"{size} {getattr(model, size)}" for size in ("n_x", "n_latent", "n_hidden") if hasattr(model, size)]
    for key, shape in shapes.items():
        given = np.shape(params[key])
        if given != shape:
            turned = "; it is transposed, as torch keeps its weights: give its .T" if given == shape[::-1] else ""
            of = f"{name} of {', '.join(sizes)}"
            raise DataError(f"{key.replace('.', ' ', 1)} is {[*given]}, where {of} has {[*shape]}{turned}")


def shapes_of(name: str, model: Model, params: Mapping[str, Any]) -> Shapes:
    """Return the shapes of a model's `theta.*`, and of its `phi.*` where params have some. Raises FlagError."""
    try:
        shapes = {f"theta.{key}": tuple(shape) for key, shape in model.theta_shapes.items()}
        if any(key.startswith("phi.") for key in params):
            shapes |= {f"phi.{key}": np.shape(value) for key, value in model.init(0)[1].items()}
    except Exception as error:  # of a user's own
        raise FlagError(f"model '{name}' raised {in_one_line(error)}") from error
    return shapes


def _alike(shapes: Shapes, params: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many of the shapes are those given, and how many are when they are turned."""
    given = {key: np.shape(params.get(key, ())) for key in shapes}
    return sum(given[key] == one for key, one in shapes.items()), sum(
        given[k][::-1] == one for k, one in shapes.items()
    )
