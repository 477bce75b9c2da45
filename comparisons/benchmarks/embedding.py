"""What posterior means of z are worth as a representation: maps of two, and a classifier of digits on more."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons.benchmarks.templates import filled
from comparisons.benchmarks.traits import infers
from comparisons.cli import parts
from comparisons.cli.flags import JUDGED
from comparisons.data import DATA, labels, load
from comparisons.disk import writing
from comparisons.errors import FlagError, NumericsError, UnfitError
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Items, Paragraph, Table
from comparisons.reporting.folder import begin, show
from comparisons.runner import store
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.fits import Fit, FitPlan, earlier, fitted
from comparisons.runner.grid import started
from inference import BACKENDS
from inference.base import setting
from inference.latents import latents

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "What the latent variables know of a digit: maps of two, and a classifier on more, with few labels and many."
FIGURE = "Posterior means of two latent variables by digit, and test accuracy of logistic regression by labels."
TITLE = "Posterior means as a representation"
NOTE = (
    "Test accuracy of logistic regression on posterior means of z, and on the pixels, from the same labelled images; ± "
    "is one standard error over draws of the labels. No model sees a label. The regularisation is that of "
    "10^-3 to 10 which serves a held-out fifth of the labels best; then all labels are fitted, to convergence."
)
PIXELS = "pixels"
PENALTIES = tuple(10.0 ** np.arange(-3, 2))  # C of scikit-learn, an inverse variance: the smaller, the more regular
MAX_ITERATIONS = 20_000
KNOWN = earlier("lower_bound", "samples", "manifold", "inference_gap")
COLUMNS = {
    "labels": "{0.n_labels}",
    "representation": "{0.backend}",
    "dimensions": "{0.dimensions}",
    "accuracy": "{0.accuracy:.2%} ± {0.accuracy_stderr:.2%}",
    "less pixels": "{0.to_pixels:+.2%} ± {0.to_pixels_stderr:.2%}",
}

Row = dict[str, Any]
Maps = dict[str, np.ndarray]  # posterior means z [n, 2] by backend


@dataclass(frozen=True, kw_only=True)
class Plan(FitPlan):
    """What is run. Each field is a flag."""

    data: str = setting("digits", "the data set", choices=tuple(name for name, card in DATA.items() if card.labels))
    backends: tuple[str, ...] = parts.backend_setting(tuple(BACKENDS), flag="--backend", also=("--backends",))
    latents: tuple[int, ...] = setting((2, 10), "latent variables of the fits", low=1, high=1000, flag="--n-latent")
    labels: tuple[int, ...] = setting(
        (100, 300, 1000, 3000, 10_000),
        "labelled training images; more than there are is left out [datapoints]",
        low=20,
        high=10**6,
        about=JUDGED,
    )
    label_draws: int = setting(5, "draws of the labelled images [draws]", low=2, high=1000, about=JUDGED)
    pool: int = setting(
        20_000, "first training images that labels are drawn from [datapoints]", low=20, high=10**6, about=JUDGED
    )
    points: int = setting(
        2000, "first test images [datapoints]", low=10, high=10**6, about=JUDGED, flag="--eval-points"
    )


def embed(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit, embed, classify; write rows.csv, table.md and figure.svg; return 0. Raises UserError."""
    import pandas as pd

    writing.prepare(out)
    experiments = planned(plan)
    data, classes = load(plan.data, data_dir), labels(plan.data, data_dir)
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    x = data.train[: plan.pool], data.test[: plan.points]
    y = classes[0][: plan.pool], classes[1][: plan.points]
    told = {"data": plan.data, "n_test": len(y[1]), "pool": len(y[0]), "samples": plan.samples}
    pixels = classified(plan, x, y)
    rows = [*_rows({**told, "backend": PIXELS, "dimensions": x[0].shape[1]}, pixels, pixels)]
    maps: Maps = {}
    for experiment in experiments:
        fit = fitted(experiment, data, out, KNOWN)
        z = means(fit, x[0]), means(fit, x[1])
        if z[1].shape[1] == 2:
            maps[experiment.backend] = z[1]
        of = {**told, "backend": experiment.backend, "dimensions": z[1].shape[1]}
        rows += _rows(of, classified(plan, z, y), pixels)
        writing.write_rows(new / "rows.csv", rows)
    frame = pd.DataFrame(rows)
    return show(
        out,
        {
            "table.md": lambda: markdown.printed(blocks(frame), TITLE),
            "figure.svg": lambda: figure(frame, maps, y[1]),
        },
    )


def planned(plan: Plan) -> list[Experiment]:
    """Return the fits of all backends that have a q(z | x). Raises FlagError, where none has, and UnfitError."""
    engine: Any = started(plan.engine, "cpu", plan.threads)
    able = [name for name in dict.fromkeys(plan.backends) if infers(engine, name)]
    if not able:
        raise FlagError(f"{' '.join(plan.backends)}: no q(z | x) to have a mean of; choose another --backend")
    if left := [name for name in dict.fromkeys(plan.backends) if name not in able]:
        print(f"no q(z | x), and so left out: {', '.join(left)}", file=sys.stderr)
    pairs = product(dict.fromkeys(plan.latents), able)
    found = [plan.experiment(data=plan.data, n_latent=k, backend=backend) for k, backend in pairs]
    shape = DATA[plan.data].shape
    if not latents(engine, built(found[0], shape[0] * shape[1])).plain:
        raise UnfitError(
            f"model {str(plan.model)!r} has other latent sites than one z ~ N(0, I); choose another --model"
        )
    return found


def means(fit: Fit, x: np.ndarray) -> np.ndarray:
    """Return E[z | x] [n, k] under the backend's q of images x [n, d], each as one that it has never seen."""
    engine = fit.engine
    with engine.pinned():
        q = fit.posterior(engine.array(x))
        assert q is not None
        return np.asarray(engine.numpy(engine.sites(engine.key(0), q.program, {}, *q.args)["z"].fn.mean))


def classified(plan: Plan, x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the test accuracy of each draw of labels, [label_draws], by their number: the same images for any x."""
    found = {}
    for count in sorted({*plan.labels}):
        if count <= len(y[0]):
            draws = [
                np.random.default_rng([plan.seed, count, i]).permutation(len(y[0])) for i in range(plan.label_draws)
            ]
            found[count] = np.array([_accuracy(x[0][at], y[0][at], x[1], y[1]) for at in (d[:count] for d in draws)])
    return found


def _accuracy(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Return the test accuracy of a logistic regression, whose regularisation a fifth of its labels has chosen."""
    cut = len(y) - len(y) // 5
    held_out = [one.score(x[cut:], y[cut:]) for one in _regressions(x[:cut], y[:cut], PENALTIES)]
    best = PENALTIES[int(np.argmax(held_out))]  # the most regular of the best
    (chosen,) = _regressions(x, y, (best,))
    return float(chosen.score(x_test, y_test))


def _regressions(x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> Iterator[Any]:
    """Yield a logistic regression for each C in ascending order, each from where the last one ended."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    for penalty in penalties:
        model.set_params(C=penalty).fit(x.astype(np.float64), y)
        if model.n_iter_.max() >= MAX_ITERATIONS:
            raise NumericsError(f"logistic regression with C = {penalty} has not converged; drop labels or columns")
        yield model


def _rows(told: Row, found: dict[int, np.ndarray], pixels: dict[int, np.ndarray]) -> Iterator[Row]:
    for count, each in found.items():
        row = {**told, "n_labels": count, "draws": len(each)}
        for name, values in (("accuracy", each), ("to_pixels", each - pixels[count])):
            row |= {name: values.mean(), f"{name}_stderr": values.std(ddof=1) / np.sqrt(len(values))}
        yield row


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the findings in sentences, and the table."""
    said = []
    for count, part in rows.groupby("n_labels"):
        best, pixels = (part[part.backend.eq(PIXELS) == own].nlargest(1, "accuracy").iloc[0] for own in (False, True))
        said.append(
            f"{count} labels: {best.accuracy:.1%} on {best.dimensions} latent variables of {best.backend}, the best, "
            f"and {pixels.accuracy:.1%} on pixels: {best.to_pixels:+.1%} ± {best.to_pixels_stderr:.1%}."
        )
    body = [
        [cell.replace("+0.00% ± 0.00%", "-") for cell in line]
        for line in filled(rows.sort_values("n_labels", kind="stable"), COLUMNS)
    ]
    one = rows.iloc[0]
    caption = (
        f"{one.data}: {one.n_test} test images, {one.draws} draws of labels from {one.pool} training images; fits of "
        f"{one.samples:,} points seen"
    )
    return [Items(said, lined=True), Table([*COLUMNS], body, caption=caption), Paragraph(NOTE)]


def figure(rows: "pd.DataFrame", maps: Maps, digits: np.ndarray) -> str:
    """Draw a map of posterior means z [n, 2] for each backend, and accuracy against labels, as SVG."""
    from comparisons.reporting import drawing

    colours, ks = drawing.colours(maps), sorted({*rows[rows.backend != PIXELS].dimensions})
    dashes = dict(zip(ks, ("-", "--", ":", "-.") * len(ks), strict=False))

    def draw(figure: Any) -> None:
        *axes, last = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
        for axis, (backend, z) in zip(axes, maps.items(), strict=True):
            marks = axis.scatter(*z.T, c=digits, cmap="tab10", vmin=-0.5, vmax=9.5, s=3, lw=0, rasterized=True)
            axis.set(title=f"{backend}: posterior means", xlabel="z1", ylabel="z2")
        if maps:
            figure.colorbar(marks, ax=axes[-1], ticks=range(10), label="digit")
        for (backend, k), part in rows.groupby(["backend", "dimensions"], sort=False):
            look = (
                {"color": "0.4", "lw": 2.5, "alpha": 0.6}
                if backend == PIXELS
                else {"color": colours[backend], "ls": dashes[k]}
            )
            last.errorbar(
                part.n_labels, part.accuracy, part.accuracy_stderr, label=f"{backend}, {k}", capsize=2, **look
            )
        drawing.logarithmic(last)
        last.set(xlabel="labels", ylabel="test accuracy")
        last.legend(frameon=False, fontsize=7)

    return drawing.svg((3.2 * (len(maps) + 1) + 0.6, 3.1), draw, {**drawing.SMALL, "savefig.dpi": 150})
