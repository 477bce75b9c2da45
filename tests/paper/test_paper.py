"""The paper's curves: all of them are there, and between two vertices the value is what the axis makes of it."""

import math
from pathlib import Path

import numpy as np
import pytest

from comparisons.errors import StorageError
from comparisons.paper import curves as paper
from comparisons.paper.curves import Curve, curves, read, value_at

SPLITS = ("train", "test")
HEAD = "figure,dataset,n_latent,n_train,backend,split,metric,n_seen,value\n"


def find(figure: str, data: str, n_latent: int, n_train: int, backend: str, split: str) -> Curve:
    wanted = (figure, data, n_latent, n_train, backend, split)
    (found,) = (curve for curve in curves() if curve[:6] == wanted)
    return found


def test_every_curve_is_there() -> None:
    figure2 = [("mnist", k, 50_000) for k in (3, 5, 20)] + [("frey", k, 1600) for k in (2, 10, 20)]
    expected = {("figure2", *panel, b, s) for panel in figure2 for b in ("aevb", "wake_sleep") for s in SPLITS}
    expected |= {
        ("figure3", "mnist", 3, n, b, s)
        for n in (1000, 50_000)
        for b in ("aevb", "wake_sleep", "monte_carlo_em")
        for s in SPLITS
    }
    assert {curve[:6] for curve in curves()} == expected
    assert len(curves()) == len(expected)


@pytest.mark.parametrize(
    ("curve", "n_seen", "value"),
    [
        (("figure2", "mnist", 3, 50_000, "aevb", "test"), 1e6, -153.0),
        (("figure2", "mnist", 20, 50_000, "wake_sleep", "train"), 1e8, -104.1),
        (("figure2", "frey", 10, 1600, "aevb", "test"), 1e7, 1171),
        (("figure3", "mnist", 3, 1000, "monte_carlo_em", "test"), 6e7, -141.6),
        (("figure3", "mnist", 3, 50_000, "aevb", "train"), 1e7, -135.5),
    ],
)
def test_known_points_of_the_figures(curve: tuple[str, str, int, int, str, str], n_seen: float, value: float) -> None:
    assert value_at(find(*curve), n_seen) == pytest.approx(value, abs=0.1 if abs(value) < 500 else 2)


def test_values_between_vertices_are_linear_in_the_logarithm() -> None:
    curve = Curve("figure2", "mnist", 3, 50_000, "aevb", "test", "elbo_nats", np.array([1e4, 1e6]), np.array([-2.0, 4]))
    assert [value_at(curve, n) for n in (1e4, 1e5, 1e6)] == pytest.approx([-2, 1, 4])
    assert math.isnan(value_at(curve, 9999)) and math.isnan(value_at(curve, 1.1e6))


def test_a_curve_that_runs_back_is_refused() -> None:
    row = "figure2,mnist,3,50000,aevb,test,elbo_nats,{},-1\n"
    assert len(read(HEAD + row.format(1) + row.format(2))) == 1
    with pytest.raises(ValueError, match="do not rise along figure2 mnist 3 aevb test"):
        read(HEAD + row.format(2) + row.format(1))


@pytest.mark.parametrize(
    "content", [None, "", HEAD, "a,b\n1,2\n", HEAD + "figure2,mnist,3,0,aevb,test,elbo_nats,x,1\n"]
)
def test_a_damaged_file_is_an_error_of_storage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "curves.csv"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(paper, "FILE", file)
    curves.cache_clear()
    with pytest.raises(StorageError, match="restore it"):
        curves()
    curves.cache_clear()
