"""How far each method's q(z | x) is from the exact posterior under its own decoder, and HMC's draws likewise."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons import cli
from comparisons.benchmarks import planes
from comparisons.benchmarks.bounds import hold_plane, kl_to
from comparisons.benchmarks.planes import Plane
from comparisons.benchmarks.templates import filled
from comparisons.cli import parts
from comparisons.cli.flags import FITTED, JUDGED
from comparisons.data import DATA, find, load
from comparisons.disk import writing
from comparisons.evidence.base import Target
from comparisons.evidence.draws import Moves, posterior_draws
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Items, Paragraph, Table
from comparisons.reporting.folder import begin, show
from comparisons.runner import store
from comparisons.runner.experiment import FORM, Experiment
from comparisons.runner.fits import fitted
from inference import BACKENDS
from inference.base import setting

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "Each method's q(z | x) beside the exact posterior of its own decoder, for two latent variables."
TITLE = "Inference of z given x"
FIGURE = (
    "A row for each method, a column for each of the first test datapoints. Grey: the exact posterior under the "
    "method's own decoder; lines: its q, at one, two and three standard deviations of a normal; points: HMC draws."
)
OF_FITS = ("data", "model", "n_hidden", "samples", "engine", "seed", "threads")
CHAINS, MOVES = 8, Moves(warmup=200, draws=200, leapfrog=10)
STEP_SIZE = 0.1  # the largest of the paper's section 5: few points are seen, and a pilot would see more
CELLS = 4  # quantiles of z1, and of z2 given those: cells of equal mass that draws are counted in
SHOWN = 5  # datapoints of the figure
NODES = 60  # along an axis, that contours are drawn by at most
COLUMNS = {
    "method": "{0.backend}",
    "KL(posterior ‖ prior)": "{0.kl_prior:.2f} ± {0.kl_prior_stderr:.2f}",
    "KL(q ‖ posterior)": "{0.kl_reverse:.3f} ± {0.kl_reverse_stderr:.3f}",
    "KL(posterior ‖ q)": "{0.kl_forward:.3f} ± {0.kl_forward_stderr:.3f}",
    "largest KL(q ‖ posterior)": "{0.kl_worst:.2f}",
    "KL(HMC draws ‖ posterior)": "{0.kl_draws:.3f} ± {0.kl_draws_stderr:.3f}",
}

Row = dict[str, Any]
Drawn = list[tuple[str, Plane, np.ndarray]]  # method, plane, and HMC's draws z [draws, n, 2]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting(
        "digits", f"the data set: one of these, or {FORM}", choices=tuple(DATA), or_file=find, form=FORM
    )
    model: str = parts.model_setting()
    backend: tuple[str, ...] = parts.backend_setting(tuple(BACKENDS))
    n_hidden: int = setting(50, "hidden units", low=1, high=20_000)
    samples: int = setting(40_000, "training points of each fit [datapoints]", low=100, high=10**9, about=FITTED)
    eval_points: int = setting(
        10, "first datapoints of test that are judged [datapoints]", low=2, high=1000, about=JUDGED
    )


def compare(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit, compare, write rows.csv, figure.svg and table.md; return 0. Raises UserError."""
    writing.prepare(out)
    told: dict[str, Any] = {
        "n_latent": 2,
        "evidence": ("none",),
        "step_size": STEP_SIZE,
        **{name: getattr(plan, name) for name in OF_FITS},
    }
    experiments = [Experiment(backend=backend, **told) for backend in dict.fromkeys(plan.backend)]
    data = load(experiments[0].data, data_dir)
    hold_plane(experiments[0], data.train.shape[1])
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    rows, drawn = [], []
    for experiment in experiments:
        fit = fitted(experiment, data, out)
        x, _ = fit.points(data, "test", plan.eval_points)
        target = fit.target(x)
        plane, off = planes.of_both(target)
        draws = posterior_draws(target, fit.engine.fold_in(fit.engine.key(plan.seed), 1), None, CHAINS, MOVES)
        z = draws.z.reshape(-1, *draws.z.shape[2:])
        name = str(experiment.backend)
        rows += [{"backend": name, "data": str(experiment.data), **row} for row in distances(target, plane, off, z)]
        drawn.append((name, plane if target.q else plane._replace(log_q=np.full_like(plane.log_q, -np.inf)), z))
        print(f"{name}: judged", file=sys.stderr)
    writing.write_rows(new / "rows.csv", rows)
    import pandas as pd

    frame = pd.read_csv(new / "rows.csv")
    return show(
        out,
        {
            "table.md": lambda: markdown.printed(blocks(frame), TITLE),
            "figure.svg": lambda: figure(drawn),
        },
    )


def distances(target: Target, plane: Plane, off: np.ndarray, z: np.ndarray) -> Iterator[Row]:
    """Yield for each datapoint both divergences between q and the posterior, and that of draws z [draws, n, 2] [nats].

    Without q the first two are NaN. `off` is what the grid may be wrong by.
    """
    none, engine = np.full(len(off), np.nan), target.engine
    prior = engine.numpy(target.latents.log_prior(target.place, target.x, engine.array(plane.z))).astype(np.float64)
    told = kl_to(plane, prior)
    reverse, forward = (plane.kl, plane.kl_forward) if target.q else (none, none)
    for i, kl_draws in enumerate(of_draws(plane, z)):
        found = {"kl_reverse": reverse[i], "kl_forward": forward[i], "kl_draws": kl_draws}
        yield {"point": i, "log_px": plane.log_px[i], "kl_prior": told[i], **found, "off": off[i]}


def of_draws(plane: Plane, z: np.ndarray) -> np.ndarray:
    """Return KL(draws || posterior) [n] over cells of equal mass, of which draws z [draws, n, 2] find their shares.

    Of S independent draws from the posterior it is about (cells - 1) / (2 S), by their noise.
    """
    side, found = round(len(plane.z) ** 0.5), []
    for i in range(z.shape[1]):
        mass = np.exp(plane.log_p[:, i] - np.logaddexp.reduce(plane.log_p[:, i])).reshape(side, side)
        z1, z2 = plane.z[::side, i, 0], plane.z[:side, i, 1]
        edges = _edges(z1, mass.sum(1))
        column, of_node = np.searchsorted(edges, z[:, i, 0]), np.searchsorted(edges, z1)
        exact, counts = [], []
        for nth in range(CELLS):
            inside = mass[of_node == nth].sum(0)
            within = _edges(z2, inside)
            exact += [np.bincount(np.searchsorted(within, z2), inside, CELLS)]
            counts += [np.bincount(np.searchsorted(within, z[column == nth, i, 1]), minlength=CELLS)]
        share = np.concatenate(counts) / len(z)
        log_ratio = np.log(np.where(share > 0, share, 1.0)) - np.log(np.concatenate(exact))
        found.append((share * log_ratio).sum())
    return np.array(found)


def _edges(z: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return where equal parts of a mass on nodes end, between two nodes."""
    above = np.cumsum(mass) / mass.sum()
    last = np.searchsorted(above, np.arange(1, CELLS) / CELLS)
    return np.asarray((z[last] + z[last + 1]) / 2)


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the findings in sentences, and the table."""
    if rows.empty:
        return []
    table, n = by_method(rows), rows.point.nunique()
    with_q = table[table.kl_reverse.notna()].sort_values("kl_reverse")
    sentences = [
        f"{row.backend}: q is {row.kl_reverse:.2f} nats from the posterior under its own decoder, {row.kl_forward:.2f} "
        f"the other way round; the posterior is {row.kl_prior:.2f} nats from the prior."
        for row in with_q.itertuples()
    ]
    body = [
        [cell.replace("nan ± nan", "no q").replace("nan", "no q") for cell in line] for line in filled(table, COLUMNS)
    ]
    draws = CHAINS * MOVES.draws
    return [
        Items(sentences, lined=True),
        Table([*COLUMNS], body, caption=ABOUT),
        Paragraph(
            f"Nats, on the first {n} points of test of {rows.data.iloc[0]}, by quadrature; ± is the standard error "
            "over datapoints. A decoder that does not look at z has the prior for a posterior, which any q can be. "
            f"HMC: {draws} draws of {CHAINS} chains from the prior, counted in {CELLS**2} cells of "
            f"equal mass; as many independent draws would be {(CELLS**2 - 1) / (2 * draws):.3f} away."
        ),
    ]


def by_method(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return means over datapoints, their standard errors, and the worst."""
    each = rows.groupby("backend", sort=False)
    names = ["kl_prior", "kl_reverse", "kl_forward", "kl_draws"]
    table = each[names].mean().join(each[names].sem().add_suffix("_stderr"))
    return table.assign(kl_worst=each.kl_reverse.max()).reset_index()


def figure(drawn: Drawn) -> str:
    """Draw posteriors, q and draws of the first datapoints, a row for each method; return SVG."""
    from comparisons.reporting import drawing

    colours, shown = drawing.colours(name for name, *_ in drawn), min(SHOWN, drawn[0][1].z.shape[1])
    levels = np.exp(-0.5 * np.array([3.0, 2.0, 1.0]) ** 2)

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(drawn), shown, squeeze=False)
        for line, (name, plane, draws) in zip(axes, drawn, strict=True):
            while len(plane.z) > NODES**2:
                plane = plane.coarser()
            side = round(len(plane.z) ** 0.5)
            for i, axis in enumerate(line):
                z1, z2 = (plane.z[:, i, j].reshape(side, side) for j in range(2))
                p, q = (height[:, i].reshape(side, side) for height in (plane.log_p, plane.log_q))
                axis.contourf(z1, z2, np.exp(p - p.max()), [*levels, 1.001], cmap="Greys", alpha=0.8)
                if np.isfinite(q.max()):
                    axis.contour(z1, z2, np.exp(q - q.max()), levels, colors=[colours[name]], linewidths=1.0)
                some = draws[:: max(1, len(draws) // 50), i]
                axis.plot(*some.T, ".", ms=2, color=drawing.BLACK)
                _zoom(axis, z1, z2, np.maximum(p - p.max(), q - q.max() if np.isfinite(q.max()) else -np.inf))
                axis.tick_params(labelsize=6)
            line[0].set_ylabel(name)

    return drawing.svg((2.0 * shown, 2.0 * len(drawn)), draw)


def _zoom(axis: Any, z1: np.ndarray, z2: np.ndarray, height: np.ndarray) -> None:
    """Show where a height is within eight nats of its top."""
    inside = height > -8.0
    axis.set(xlim=(z1[inside].min(), z1[inside].max()), ylim=(z2[inside].min(), z2[inside].max()))
