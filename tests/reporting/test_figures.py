"""Learning curves of any number of runs: no text over another, and a scale that one run gone astray does not set."""

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from frames import frame, row
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from comparisons.reporting import drawing, figures

LONG = f"{'a' * 60}.py:{'B' * 60}"


def drawn(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the figure itself, laid out, where `learning_curves` would save it."""
    kept: list[Any] = []

    def lay_out(size: tuple[float, float], draw: Any, style: Any) -> str:
        from matplotlib import rc_context

        with rc_context({**drawing.ALWAYS, **style}):
            figure: Any = Figure(figsize=size, layout="constrained")
            draw(figure)
            FigureCanvasAgg(figure).draw()
        kept.append(figure)
        return ""

    monkeypatch.setattr(drawing, "svg", lay_out)
    figures.learning_curves(frame(*rows))
    return kept[0]


def curves(ends: dict[str, float], metric: str = "elbo_nats", **changes: Any) -> list[dict[str, Any]]:
    """Return for each backend a curve that climbs to its end over four decades, on both splits."""
    return [
        row(
            backend=backend, n_seen=10**n, value=end - abs(end) * (n**-3 - 6**-3), split=split, metric=metric, **changes
        )
        for backend, end in ends.items()
        for n in (2, 3, 4, 6)
        for split in ("train", "test")
    ]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Return each two texts, of those that are shown, that lie over one another; and texts that leave the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [*figure.legends[0].get_texts(), *figure.texts]
    for axes in (one for one in figure.axes if one.get_visible()):
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [(one.get_text(), one.get_window_extent(renderer).padded(-0.5)) for one in texts if one.get_text()]
    over = [(one, other) for (one, a), (other, b) in combinations(shown, 2) if a.overlaps(b)]
    return over + [(words, "edge") for words, box in shown if box.x1 > figure.bbox.x1 or box.y0 < figure.bbox.y0]


@pytest.mark.parametrize(
    ("panels", "backends"), [(1, ["aevb"]), (2, ["aevb", LONG]), (10, ["aevb", LONG]), (40, ["aevb"])]
)
def test_no_text_lies_over_another(panels: int, backends: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        one
        for k in range(1, panels + 1)
        for metric in ("elbo_nats", "log_px_quadrature_nats")[: 1 if panels > 10 else 2]
        for i, method in enumerate(
            ["", "theta=ml", f"step_size=0.02 backend_sha256={'0' * 12}"][: 1 if panels > 9 else 3]
        )
        for one in curves(
            dict.fromkeys(backends, -100.0 - 2 * i), metric, n_latent=k, model=backends[-1], method=method
        )
    ]
    rows += curves({LONG.lower(): -1e9}, model=backends[-1], n_latent=1)
    figure = drawn(rows, monkeypatch)
    assert overlapping(figure) == []
    assert sum(axis.get_visible() for axis in figure.axes) == (panels if panels > 10 else 2 * panels)
    width, height = figure.get_size_inches()
    assert height / width < 2.5 and width < 26


def test_many_curves_of_many_settings_have_their_numbers_beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [one for i in range(30) for one in curves({"aevb": -100.0 - i / 100}, method=f"step_size={i}")]
    figure = drawn(rows, monkeypatch)
    assert overlapping(figure) == []
    assert {*map(str, range(1, 31))} <= {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("wild", [-1e9, -400.0, 1e9])
@pytest.mark.parametrize("others", [1, 2, 5])
def test_a_run_that_went_astray_does_not_set_the_scale(
    wild: float, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {f"m{i}.py:f": -25.0 - i for i in range(others)}
    (axis,) = drawn(curves({**ends, "wild.py:f": wild}), monkeypatch).axes
    low, high = axis.get_ylim()
    assert -60 < low < min(ends.values()) and -25 < high < 0
    assert f"outside: wild.py:f at {wild:.3g}" in axis.get_title()
    marks = [line for line in axis.lines if line.get_marker() in ("^", "v") and not line.get_clip_on()]
    assert {line.get_marker() for line in marks} == {"^" if wild > 0 else "v"}
    assert all(low <= y <= high for line in marks for y in line.get_ydata())


def test_what_diverged_is_named_and_an_early_end_sets_no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = curves({"aevb": -25.0})
    rows += [row(backend="wake_sleep", n_seen=100, value=-49.0, cell="w"),
             row(backend="wake_sleep", n_seen=10**6, value=np.nan, status="diverged", cell="w")]  # fmt: skip
    (axis,) = drawn(rows, monkeypatch).axes
    assert "diverged: wake_sleep" in axis.get_title() and axis.get_ylim()[0] > -30


def test_a_method_that_learns_nothing_stays_in_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    (axis,) = drawn(curves({"aevb": -25.0, "wake_sleep": -44.0}), monkeypatch).axes
    assert axis.get_ylim()[0] < -44 and "outside" not in axis.get_title()


def test_a_logarithmic_axis_has_its_ticks_at_decades(monkeypatch: pytest.MonkeyPatch) -> None:
    (axis,) = drawn(curves({"aevb": -25.0}), monkeypatch).axes
    low, high = axis.get_xlim()
    assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1e2, 1e3, 1e4, 1e5, 1e6]


def test_a_drawing_is_the_same_where_the_last_bits_of_its_coordinates_are_others() -> None:
    """As another processor has them: a clip and a mark are named by their place in the drawing, not by their bits."""

    def picture(shift: float) -> str:
        def draw(figure: Any) -> None:
            figure.set_layout_engine("none")
            axis = figure.add_axes((0.1 + shift, 0.1, 0.8, 0.8))
            axis.plot([0.0, 1.0], [0.0, 1.0], "o-")
            axis.set_title('#m0123456789 and "p0123456789"')

        return drawing.svg((3.0, 2.0), draw)

    assert picture(0.0) == picture(1e-16) == picture(1e-15)
    names = re.findall(r'id="([mph]\d+)"', picture(0.0))
    assert len(names) == len({*names}) >= 3 and set(re.findall(r"#([mph]\d+)[\")]", picture(0.0))) == {*names}
    assert "#m0123456789 and" in picture(0.0)
