"""What was measured of speed, as ratios, a table and a figure: pure functions of the rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from comparisons.benchmarks.scans import SCAN_OF
from comparisons.disk import reading
from comparisons.reporting import drawing
from comparisons.reporting.blocks import Block, Heading, Paragraph, Table
from comparisons.runner.experiment import Experiment
from inference import BACKENDS, ENGINES

ABOUT = "What the same work costs, engine by engine."
FIGURE = "Milliseconds a step, the fewer the better: backends in colour, the libraries and steps by hand in grey."
DEFAULT = Experiment.backend  # which the peers are held against: they climb its bound
ROOF, SVI, HAND = "matrix products", "SVI, Trace_ELBO", "by hand"
PEER_OF = {"torch": "pyro", "jax": "numpyro"}  # the engine of ours on the library of a peer
OWN = f"{ROOF} of "
SCANNED = "jax"  # the library that each backend's step is written in by hand as well, as a scan
PEERS = {
    "scan by hand": "jax, scan by hand",  # of AEVB, before there was one of each backend
    "by hand": "torch, by hand",
    "scan by hand, with its bound": "jax, scan by hand that returns the bound of each step",
    "SVI, Trace_ELBO": "Pyro, SVI with Trace_ELBO",
    "SVI, JitTrace_ELBO": "Pyro, SVI with JitTrace_ELBO",
    "SVI, CompiledELBO": "Pyro, SVI with CompiledELBO (ours)",
    "SVI, Python loop": "NumPyro, SVI in a Python loop",
}
SIZES = {"n_hidden": "hidden units", "n_latent": "latent variables"}
TOLD = [*SIZES, "threads"]
LINES = {  # of the parts whose medians alone are told: what tells a table's lines apart, and the word for it
    "seeds": {**SIZES, "contestant": ""},
    "bound": {**SIZES, "engine": "engine", "draws": "draws of z for each"},
    "memory": {"contestant": "backend", "engine": "engine", **SIZES},
}
MEDIANS = {  # the title, the quantity, the word for it, and its digits
    "seeds": ("Seeds as one vectorised axis (NumPyro, AEVB)", "step_ms", "ms a step and seed", 2),
    "bound": ("The lower bound of 10,000 points, once compiled", "bound_s", "seconds", 2),
    "memory": ("Peak memory of a run on data of MNIST's size", "peak_mb", "MB", 0),
}
AXES = {
    "n_train": "training points N",
    **SIZES,
    "minibatch": "minibatch M",
    "leapfrog_steps": "leapfrog steps",
}


def read(parts: Sequence[Path]) -> pd.DataFrame:
    """Read the rows of parts, one file each; the first did not say that two threads were theirs."""
    rows = pd.concat([reading.table(path) for path in parts], ignore_index=True)
    return rows.assign(threads=rows.threads.fillna(2).astype(int) if "threads" in rows else 2)


def medians(rows: pd.DataFrame, part: str, quantity: str, by: list[str]) -> pd.DataFrame:
    """Return the median over repeats, with the least and the greatest, of what was measured in a part."""
    mine = rows[rows.part == part]
    if not mine.quantity.eq(quantity).any():
        return pd.DataFrame(columns=[*by, "median", "least", "most"])
    order = mine[by].drop_duplicates()  # as they were built, not as their turns came
    grouped = mine[mine.quantity == quantity].groupby(by).value
    return order.merge(grouped.agg(median="median", least="min", most="max").reset_index(), on=by)


def ratios(rows: pd.DataFrame) -> dict[str, float]:
    """Return ratios of medians by name: each backend to its roof, the peers to the default one, and how costs grow."""
    found: dict[str, float] = {}
    steps = medians(rows, "step", "step_ms", ["contestant", "engine", *TOLD])
    for told, group in steps.groupby(TOLD, sort=False):
        ms = {(line.contestant, line.engine): line.median for line in group.itertuples()}
        roofs = {name: value for (name, engine), value in ms.items() if engine == "torch"}
        shape = f"{int(told[0])}/{int(told[1])}, {_threads(told[2])}:"
        for (name, engine), value in ms.items():
            if name in BACKENDS:
                found[f"{shape} {name} {engine} / its products"] = value / _roof(roofs, name)
                if (scan := (f"{SCAN_OF}{name}", SCANNED)) in ms:
                    found[f"{shape} {name} {engine} / its scan by hand"] = value / ms[scan]
            if name != DEFAULT and not name.startswith((ROOF, SCAN_OF)):
                beside = PEER_OF.get(engine, engine)
                found[f"{shape} {name} {engine} / {DEFAULT} {beside}"] = value / ms[DEFAULT, beside]
    for (axis, engine), line in _growth(rows):
        if axis == "n_train":
            few, many = line.iloc[0], line.iloc[-1]
            name = f"{few.contestant} {engine}, N = {int(many.n_train):,} / {int(few.n_train):,}"
            found[name] = many["median"] / few["median"]
    seeds = medians(rows, "seeds", "step_ms", ["contestant", *SIZES])
    for told, group in seeds.groupby([*SIZES], sort=False):
        each = {str(line.contestant): line.median for line in group.itertuples()}
        several = next(name for name in each if name != "one seed")
        found[f"{int(told[0])}/{int(told[1])} {several} / one"] = each[several] / each["one seed"]
    grid = medians(rows, "grid", "grid_s", ["contestant"])
    if len(grid) == 2:
        found[f"grid, {grid.contestant[0]} / {grid.contestant[1]}"] = grid["median"][0] / grid["median"][1]
    return {name: round(float(value), 3) for name, value in found.items()}


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return the tables, a part each."""
    return [block for part in (_steps, _growth_table, _medians, _grid) for block in part(rows)]


def figure(rows: pd.DataFrame) -> str:
    """Draw a step's milliseconds, contestant by contestant, and how they grow. Returns SVG."""
    steps = medians(rows, "step", "step_ms", ["contestant", "engine", *TOLD])
    shapes = list(steps.groupby(TOLD, sort=False))
    lines = list(_growth(rows))
    axes = [axis for axis in AXES if any(key[0] == axis for key, _ in lines)]
    columns = 3 if axes else 2
    above = -(-len(shapes) // 2)
    n_rows = above + -(-len(axes) // columns)

    def draw(picture: Any) -> None:
        outer = picture.add_gridspec(max(1, n_rows), 1)
        halves = [outer[i].subgridspec(1, min(2, len(shapes))) for i in range(above)]
        for place, (told, group) in enumerate(shapes):
            _bars(picture.add_subplot(halves[place // 2][place % 2]), told, group, labelled=place % 2 == 0)
        below = [outer[i].subgridspec(1, columns) for i in range(above, n_rows)]
        for number, axis in enumerate(axes):
            panel = picture.add_subplot(below[number // columns][number % columns])
            _grown(panel, axis, [(engine, line) for (name, engine), line in lines if name == axis])

    return drawing.svg((10.5, 0.6 + 3.6 * max(1, n_rows)), draw)


def _grown(panel: Any, axis: str, lines: list[tuple[str, pd.DataFrame]]) -> None:
    from matplotlib.ticker import FixedLocator

    for engine, line in lines:
        backend = line.contestant.iloc[0]
        look = {"marker": drawing.marker(engine), "linestyle": "--" if engine == "pyro" else "-"}
        colour = drawing.colours([backend])[backend]
        panel.plot(line[axis], line["median"], color=colour, label=f"{backend}, {engine}", **look)
    drawing.logarithmic(panel)
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(FixedLocator(sorted({value for _, line in lines for value in line[axis]})))
    panel.set_xlabel(AXES[axis])
    panel.set_ylabel("ms a step")
    panel.legend(frameon=False, fontsize=7)


def _bars(axis: Any, told: Any, group: pd.DataFrame, labelled: bool) -> None:
    group = group[::-1]
    colour = [drawing.OF_BACKENDS.get(name, "0.6") for name in group.contestant]
    places = range(len(group))
    error = [group["median"] - group.least, group.most - group["median"]]
    axis.barh(places, group["median"], color=colour, height=0.7)
    axis.errorbar(group["median"], places, xerr=error, fmt="none", ecolor="0.2", elinewidth=0.8)
    axis.set_yticks(places, group.apply(_name, axis=1) if labelled else [""] * len(group), fontsize=8)
    axis.set_xlabel("ms a step: median, least and most")
    axis.set_title(f"{int(told[0])} hidden units, {int(told[1])} latent variables\n{_threads(told[2])}", fontsize=9)


def _name(line: Any) -> str:
    return PEERS.get(
        line.contestant, f"{line.contestant}, {line.engine}" if line.engine != "torch" else line.contestant
    )


def _growth(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    if "axis" in rows:
        found = medians(rows, "growth", "step_ms", ["axis", "contestant", "engine", *AXES])
        for key, line in found.groupby(["axis", "engine"], sort=False):
            yield (str(key[0]), str(key[1])), line.sort_values(str(key[0]))


def _steps(rows: pd.DataFrame) -> Iterator[Block]:
    steps = medians(rows, "step", "step_ms", ["contestant", "engine", *TOLD])
    compiled = medians(rows, "step", "compile_s", ["contestant", "engine", *TOLD])
    seconds = {tuple(line[:5]): line[5] for line in compiled.itertuples(index=False)}
    for told, group in steps.groupby(TOLD, sort=False):
        ms = {line.contestant: line.median for line in group.itertuples() if line.engine in ("torch", "pyro")}
        body = []
        for line in group.itertuples(index=False):
            first = seconds.get((line.contestant, line.engine, *told), 0.0)
            beside = [line.median / _roof(ms, line.contestant), ms[SVI] / line.median, ms[HAND] / line.median]
            spread = [f"{x:.2f}" for x in (line.median, line.least, line.most)]
            body.append([_name(line), *spread, *(f"{x:.2f} x" for x in beside), f"{first:.1f}"])
        yield Heading(
            f"A step: {int(told[0])} hidden units, {int(told[1])} latent variables, minibatch 100, {_threads(told[2])}"
        )
        head = ["", "ms a step", "least", "most", "to the roof", "Pyro's SVI takes", "by hand takes", "first steps, s"]
        yield Table(head, body)
        own = ", ".join(f"of {name.removeprefix(OWN)}: its own, 37" for name in ms if name.startswith(OWN))
        yield Paragraph(
            "Medians over turns in which all took part. The roof is the five large matrix products of a step "
            f"({own}); peers climb AEVB's bound. 784 pixels."
        )
        yield from _beside_scans(group)


def _beside_scans(group: pd.DataFrame) -> Iterator[Block]:
    """Yield a table of each backend's step beside the same step by hand, where that was timed."""
    ms = {(line.contestant, line.engine): line.median for line in group.itertuples()}
    engines = [name for name in ENGINES if (DEFAULT, name) in ms]
    body = [
        [backend, f"{ms[scan]:.2f}", *(f"{ms[backend, engine] / ms[scan]:.2f} x" for engine in engines)]
        for backend in BACKENDS
        if (scan := (f"{SCAN_OF}{backend}", SCANNED)) in ms
    ]
    if body:
        caption = "Each backend's step and the same step by hand: a scan in jax of the gradient alone, Adagrad inline."
        yield Table(["backend", "by hand, ms a step", *(f"on {name}" for name in engines)], body, caption=caption)


def _growth_table(rows: pd.DataFrame) -> Iterator[Block]:
    body = []
    for (axis, engine), line in _growth(rows):
        shown = ", ".join(f"{int(x):,}: {y:.2f}" for x, y in zip(line[axis], line["median"], strict=True))
        body.append([AXES[axis], line.contestant.iloc[0], engine, shown])
    if body:
        yield Heading("How a step's cost grows")
        yield Table(["along", "backend", "engine", "ms a step"], body)
        yield Paragraph(
            "100 hidden units, 3 latent variables and 784 pixels where nothing else is said; along N the data have "
            "64 columns, so that a million rows fit any memory."
        )


def _medians(rows: pd.DataFrame) -> Iterator[Block]:
    for part, (title, quantity, shown, digits) in MEDIANS.items():
        if rows.part.eq(part).any():
            by = [*LINES[part]]
            found = medians(rows, part, quantity, by)
            cells = [[x if isinstance(x, str) else f"{int(x)}" for x in line] for line in found[by].to_numpy()]
            body = [[*line, f"{value:.{digits}f}"] for line, value in zip(cells, found["median"], strict=True)]
            yield Heading(title)
            yield Table([*LINES[part].values(), shown], body)


def _grid(rows: pd.DataFrame) -> Iterator[Block]:
    seconds = medians(rows, "grid", "grid_s", ["contestant"])
    if len(seconds):
        each = medians(rows, "grid", "cells_per_hour", ["contestant"])
        cells = int(rows[rows.part == "grid"].cells.iloc[0])
        body = [
            [one.contestant, f"{one.median:.0f}", f"{one.least:.0f} to {one.most:.0f}", f"{two.median:.0f}"]
            for one, two in zip(seconds.itertuples(), each.itertuples(), strict=True)
        ]
        yield Heading(f"A grid of {cells} cells on digits: four backends, two engines")
        yield Table(["", "seconds, median", "least to most", "cells per hour"], body)


def _threads(count: float) -> str:
    return "1 thread" if count == 1 else f"{int(count)} threads"


def _roof(ms: dict[str, float], contestant: str) -> float:
    """Return the milliseconds of a contestant's matrix products: of its own, where it has some, or of a step's five."""
    return next((ms[roof] for roof in ms if roof.startswith(OWN) and roof.removeprefix(OWN) in contestant), ms[ROOF])
