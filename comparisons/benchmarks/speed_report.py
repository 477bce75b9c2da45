"""What was measured of speed, as ratios, a table and a figure: pure functions of the rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from comparisons.reporting import drawing

ROOF, EM_ROOF = "matrix products", "matrix products of monte_carlo_em"
TOLD = ["n_hidden", "n_latent"]
PEERS = {
    "by hand": "torch, by hand",
    "SVI, Trace_ELBO": "Pyro, SVI with Trace_ELBO",
    "SVI, JitTrace_ELBO": "Pyro, SVI with JitTrace_ELBO",
    "SVI, CompiledELBO": "Pyro, SVI with CompiledELBO (ours)",
    "SVI, Python loop": "NumPyro, SVI in a Python loop",
}
AXES = {
    "n_train": "training points N",
    "n_hidden": "hidden units",
    "n_latent": "latent variables",
    "minibatch": "minibatch M",
    "leapfrog_steps": "leapfrog steps",
}


def read(parts: Sequence[Path]) -> pd.DataFrame:
    """Read the rows of parts, one file each."""
    return pd.concat([pd.read_csv(path) for path in parts], ignore_index=True)


def medians(rows: pd.DataFrame, part: str, quantity: str, by: list[str]) -> pd.DataFrame:
    """Return the median over repeats, with the least and the greatest, of what was measured in a part."""
    mine = rows[rows.part == part]
    if not mine.quantity.eq(quantity).any():
        return pd.DataFrame(columns=[*by, "median", "least", "most"])
    order = mine[by].drop_duplicates()  # as they were built, not as their turns came
    grouped = mine[mine.quantity == quantity].groupby(by).value
    return order.merge(grouped.agg(median="median", least="min", most="max").reset_index(), on=by)


def ratios(rows: pd.DataFrame) -> dict[str, float]:
    """Return ratios of medians by name: each backend to its roof and to its peers, and how far costs grow."""
    found: dict[str, float] = {}
    steps = medians(rows, "step", "step_ms", ["contestant", "engine", *TOLD])
    for told, group in steps.groupby(TOLD, sort=False):
        ms = {(line.contestant, line.engine): line.median for line in group.itertuples()}
        shape = f"{int(told[0])}/{int(told[1])}"
        roof, stock, hand = ms[ROOF, "torch"], ms["SVI, Trace_ELBO", "pyro"], ms["by hand", "torch"]
        for engine in ("numpyro", "pyro"):
            aevb = ms["aevb", engine]
            found[f"{shape} aevb {engine} / roof"] = aevb / roof
            found[f"{shape} wake_sleep {engine} / aevb {engine}"] = ms["wake_sleep", engine] / aevb
            found[f"{shape} monte_carlo_em {engine} / its products"] = (
                ms["monte_carlo_em", engine] / ms[EM_ROOF, "torch"]
            )
        found[f"{shape} Pyro SVI / aevb pyro"] = stock / ms["aevb", "pyro"]
        found[f"{shape} Pyro SVI / CompiledELBO"] = stock / ms["SVI, CompiledELBO", "pyro"]
        found[f"{shape} by hand / aevb pyro"] = hand / ms["aevb", "pyro"]
        found[f"{shape} NumPyro SVI / aevb numpyro"] = ms["SVI, Python loop", "numpyro"] / ms["aevb", "numpyro"]
    for (axis, engine), line in _growth(rows):
        if axis == "n_train":
            name = f"mean_field {engine}, N = {int(line.n_train.iloc[-1]):,} / {int(line.n_train.iloc[0]):,}"
            found[name] = line["median"].iloc[-1] / line["median"].iloc[0]
    seeds = medians(rows, "seeds", "step_ms", ["contestant", *TOLD])
    for told, group in seeds.groupby(TOLD, sort=False):
        each = {str(line.contestant): line.median for line in group.itertuples()}
        several = next(name for name in each if name != "one seed")
        found[f"{int(told[0])}/{int(told[1])} {several} / one"] = each[several] / each["one seed"]
    grid = medians(rows, "grid", "grid_s", ["contestant"])
    if len(grid) == 2:
        found[f"grid, {grid.contestant[0]} / {grid.contestant[1]}"] = grid["median"][0] / grid["median"][1]
    return {name: round(float(value), 3) for name, value in found.items()}


def markdown(rows: pd.DataFrame) -> str:
    """Return the tables, a part each."""
    return "\n".join(
        text for part in (_steps, _growth_table, _seeds, _bounds, _memory, _grid) for text in part(rows)
    )  # fmt: skip


def figure(rows: pd.DataFrame) -> str:
    """Draw a step's milliseconds, contestant by contestant, and how they grow. Returns SVG."""
    steps = medians(rows, "step", "step_ms", ["contestant", "engine", *TOLD])
    shapes = list(steps.groupby(TOLD, sort=False))
    lines = list(_growth(rows))
    axes = [axis for axis in AXES if any(key[0] == axis for key, _ in lines)]
    columns = 3 if axes else 2
    above = 1 if shapes else 0
    n_rows = above + -(-len(axes) // columns)

    def draw(picture: Any) -> None:
        outer = picture.add_gridspec(max(1, n_rows), 1)
        if shapes:
            inner = outer[0].subgridspec(1, len(shapes))
            for place, (told, group) in enumerate(shapes):
                _bars(picture.add_subplot(inner[place]), told, group, labelled=place == 0)
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
    axis.set_title(f"{int(told[0])} hidden units, {int(told[1])} latent variables", fontsize=9)


def _name(line: Any) -> str:
    return PEERS.get(
        line.contestant, f"{line.contestant}, {line.engine}" if line.engine != "torch" else line.contestant
    )


def _growth(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    if "axis" in rows:
        found = medians(rows, "growth", "step_ms", ["axis", "contestant", "engine", *AXES])
        for key, line in found.groupby(["axis", "engine"], sort=False):
            yield (str(key[0]), str(key[1])), line.sort_values(str(key[0]))


def _steps(rows: pd.DataFrame) -> Iterator[str]:
    steps = medians(rows, "step", "step_ms", ["contestant", "engine", *TOLD])
    compiled = medians(rows, "step", "compile_s", ["contestant", "engine", *TOLD])
    seconds = {tuple(line[:4]): line[4] for line in compiled.itertuples(index=False)}
    for told, group in steps.groupby(TOLD, sort=False):
        ms = {line.contestant: line.median for line in group.itertuples() if line.engine in ("torch", "pyro")}
        yield f"## A step: {int(told[0])} hidden units, {int(told[1])} latent variables, minibatch 100, 784 pixels\n"
        yield "| | ms a step | least | most | to the roof | Pyro's SVI takes | by hand takes | first steps, s |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for line in group.itertuples(index=False):
            roof = ms[EM_ROOF if "monte_carlo_em" in line.contestant else ROOF]
            first = seconds.get((line.contestant, line.engine, *told), 0.0)
            spread = f"{line.median:.2f} | {line.least:.2f} | {line.most:.2f}"
            beside = [line.median / roof, ms["SVI, Trace_ELBO"] / line.median, ms["by hand"] / line.median]
            yield f"| {_name(line)} | {spread} | {' | '.join(f'{x:.2f} x' for x in beside)} | {first:.1f} |"
        yield (
            "\nMedians over turns in which all took part. The roof is the six large matrix products of a step (of "
            "monte_carlo_em: its own, 37); peers climb AEVB's bound.\n"
        )


def _growth_table(rows: pd.DataFrame) -> Iterator[str]:
    lines = list(_growth(rows))
    if lines:
        yield "## How a step's cost grows\n"
        yield "| along | backend | engine | ms a step |"
        yield "| --- | --- | --- | --- |"
        for (axis, engine), line in lines:
            shown = ", ".join(f"{int(x):,}: {y:.2f}" for x, y in zip(line[axis], line["median"], strict=True))
            yield f"| {AXES[axis]} | {line.contestant.iloc[0]} | {engine} | {shown} |"
        yield (
            "\n100 hidden units, 3 latent variables and 784 pixels where nothing else is said; along N the data have "
            "64 columns, so that a million rows fit any memory.\n"
        )


def _seeds(rows: pd.DataFrame) -> Iterator[str]:
    found = medians(rows, "seeds", "step_ms", ["contestant", *TOLD])
    if len(found):
        yield "## Seeds as one vectorised axis (NumPyro, AEVB)\n"
        yield "| hidden units | latent variables | | ms a step and seed |"
        yield "| --- | --- | --- | --- |"
        for line in found.itertuples():
            yield f"| {int(line.n_hidden)} | {int(line.n_latent)} | {line.contestant} | {line.median:.2f} |"
        yield ""


def _bounds(rows: pd.DataFrame) -> Iterator[str]:
    if "draws" in rows:
        found = medians(rows, "bound", "bound_s", ["engine", *TOLD, "draws"])
        yield "## The lower bound of 10,000 points, once compiled\n"
        yield "| hidden units | latent variables | engine | draws of z for each | seconds |"
        yield "| --- | --- | --- | --- | --- |"
        for line in found.itertuples():
            told = f"{int(line.n_hidden)} | {int(line.n_latent)} | {line.engine} | {int(line.draws)}"
            yield f"| {told} | {line.median:.2f} |"
        yield ""


def _memory(rows: pd.DataFrame) -> Iterator[str]:
    found = medians(rows, "memory", "peak_mb", ["contestant", "engine", *TOLD])
    if len(found):
        yield "## Peak memory of a run on data of MNIST's size\n"
        yield "| backend | engine | hidden units | latent variables | MB |"
        yield "| --- | --- | --- | --- | --- |"
        for line in found.itertuples():
            told = f"{line.contestant} | {line.engine} | {int(line.n_hidden)} | {int(line.n_latent)}"
            yield f"| {told} | {line.median:.0f} |"
        yield ""


def _grid(rows: pd.DataFrame) -> Iterator[str]:
    seconds = medians(rows, "grid", "grid_s", ["contestant"])
    if len(seconds):
        each = medians(rows, "grid", "cells_per_hour", ["contestant"])
        cells = int(rows[rows.part == "grid"].cells.iloc[0])
        yield f"## A grid of {cells} cells on digits: four backends, two engines\n"
        yield "| | seconds, median | least to most | cells per hour |"
        yield "| --- | --- | --- | --- |"
        for one, two in zip(seconds.itertuples(), each.itertuples(), strict=True):
            yield f"| {one.contestant} | {one.median:.0f} | {one.least:.0f} to {one.most:.0f} | {two.median:.0f} |"
        yield ""
