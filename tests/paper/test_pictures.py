"""Sheets of images: where each image lies, that a PNG is one, and that the commands say what made them."""

import io
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comparisons import lower_bound, manifold, samples
from comparisons.cli import parse_plan
from comparisons.data import Data
from comparisons.errors import FlagError, StorageError, UnfitError
from comparisons.paper import pictures
from comparisons.runner.experiment import identity
from comparisons.runner.grid import parse_preset
from inference.base import Engine, arrays
from models.vae import VaeBernoulli, VaeGaussian


def test_images_lie_row_by_row() -> None:
    images = np.arange(6)[:, None] / 10 + np.zeros((6, 6))  # six images of 2 x 3 pixels, each of one grey
    pixels = pictures.sheet(images, (2, 3), 3)
    assert pixels.shape == (4, 9) and pixels.dtype == np.uint8
    expected = np.round(255 * np.array([[0, 0.1, 0.2], [0.3, 0.4, 0.5]]))
    np.testing.assert_array_equal(pixels[::2, ::3], expected)
    np.testing.assert_array_equal(pixels[1::2, 2::3], expected)


def test_an_image_is_not_transposed() -> None:
    image = np.linspace(0, 1, 6)
    np.testing.assert_array_equal(pictures.sheet(image[None], (2, 3), 1), np.round(255 * image).reshape(2, 3))


def test_a_png_is_read_back_as_it_was() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7), np.uint8)
    assert pictures.png(pixels) == pictures.png(pixels.copy())
    with Image.open(io.BytesIO(pictures.png(pixels))) as image:
        image.load()
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("kind", [VaeBernoulli, VaeGaussian])
def test_what_is_shown_is_the_decoders_mean(engine: Engine, kind: Any) -> None:
    model = kind(6, 2, 5)
    rng = np.random.default_rng(0)
    theta = {name: rng.standard_normal(shape) for name, shape in model.theta_shapes.items()}
    z = rng.standard_normal((7, 2))
    fit: Any = SimpleNamespace(engine=engine, model=model, theta=arrays(engine, theta))
    hidden = np.tanh(z @ theta["w1"] + theta["b1"])
    expected = 1 / (1 + np.exp(-(hidden @ theta["w2"] + theta["b2"])))
    np.testing.assert_allclose(pictures.decoder_means(fit, z), expected, atol=1e-5)


def test_the_manifold_is_the_unit_square_through_the_inverse_normal() -> None:
    z = manifold.manifold(4)
    line = [-1.1503493803760079, -0.31863936396437526, 0.31863936396437526, 1.1503493803760079]  # at 1/8, 3/8, ...
    np.testing.assert_allclose(z[:4, 0], line)
    np.testing.assert_allclose(z[::4, 1], line[::-1])
    assert np.unique(z, axis=0).shape == (16, 2)


def test_figure_2_and_the_pictures_take_up_each_others_fits() -> None:
    requests = parse_preset("lower_bound", "", lower_bound.DEFAULTS, lower_bound.PRESETS, ["--preset", "standard"])
    cells = {identity(e, "data") for request in requests for e in request.experiments}
    plan, _, _ = parse_plan("samples", "", samples.Plan, ["--samples", "1e7"])
    wanted = [pictures.experiment(plan, "mnist", k, plan.n_hidden) for k in (5, 10, 20)]
    other, _, _ = parse_plan("manifold", "", manifold.Plan, ["--samples", "1e7"])
    wanted.append(pictures.experiment(other, "frey", 2, other.frey_hidden))
    assert {identity(e, "data") for e in wanted} <= cells


def test_draws_of_the_prior_are_of_their_seed_and_size() -> None:
    z = samples.prior(0, 3, 5000)
    np.testing.assert_array_equal(z, samples.prior(0, 3, 5000))
    assert not np.array_equal(z, samples.prior(1, 3, 5000))
    assert abs(z.mean()) < 5 / np.sqrt(z.size) and abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)


def small(name: str, data_dir: Path | None) -> Data:
    rng = np.random.default_rng(0)
    train, test = rng.random((300, 6), np.float32), rng.random((100, 6), np.float32)
    return Data(name, train, test, (2, 3), "unit", "", False)


@pytest.mark.parametrize(
    ("module", "names", "flags"),
    [
        (manifold, ["frey", "mnist"], ["--mnist-hidden", "5", "--frey-hidden", "4"]),
        (samples, ["mnist-2", "mnist-10"], ["--latents", "10", "2", "--n-hidden", "5"]),
    ],
)
def test_a_command_draws_and_says_what_made_each_sheet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
    names: list[str],
    flags: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "load", small)
    command = [*flags, "--samples", "200", "--grid", "3", "--engine", "pyro", "--out", "out"]
    assert module.main(command) == 0
    assert "out/:\ntable.md, *.png." in capsys.readouterr().out
    sheets = pictures.read(tmp_path / "out")
    assert [path.stem for path, _ in sheets] == names
    before = {path: path.read_bytes() for path, _ in sheets}
    for path, facts in sheets:
        with Image.open(path) as image:
            assert image.size == (9, 6)
        assert facts["settings"]["samples"] == 200 and facts["shape"] == [6, 9]
        assert isinstance(facts["fit"]["bound"], float) and "commit" in facts["fit"]
        assert path.name in (tmp_path / "out" / "table.md").read_text()
    monkeypatch.setattr("comparisons.runner.fits.run_cell", lambda *args: pytest.fail("trained again"))
    assert module.main(command) == 0
    assert {path: path.read_bytes() for path, _ in sheets} == before


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        (manifold, ["--data", "digits"]),
        (manifold, ["--grid", "1"]),
        (manifold, ["--samples", "1e99"]),
        (manifold, ["--backend", "a.py:b"]),
        (samples, ["--latents", "0"]),
        (samples, ["--latents", "two"]),
        (samples, ["--data", "frey"]),
    ],
)
def test_wrong_flags_are_refused(module: ModuleType, flags: list[str]) -> None:
    with pytest.raises(FlagError):
        parse_plan("x", "", module.Plan, flags)


def test_a_damaged_description_is_an_error_of_storage(tmp_path: Path) -> None:
    assert pictures.read(tmp_path) == []
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StorageError, match=r"a\.json"):
        pictures.read(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"pixels_sha256": ""}))
    with pytest.raises(StorageError, match=r"draw it again"):
        pictures.read(tmp_path)


def test_descriptions_are_escaped(tmp_path: Path) -> None:
    settings = {"backend": "<b>|", "engine": "e", "n_latent": 2, "n_hidden": 5, "samples": 1, "seed": 0, "theta": "map"}
    facts = {
        "settings": settings,
        "title": "<script>",
        "latents": "z\n<",
        "command": "c",
        "commit": "",
        "python": "",
        "cell": "",
        "shape": [1, 1],
        "pixels_sha256": "",
    }
    text = pictures.table("Sheets", [(tmp_path / "a.png", facts)])
    assert "<" not in text and "&lt;script&gt;" in text and "&lt;b&gt;\\|" in text


def test_other_latents_are_refused_before_any_training(tmp_path: Path) -> None:
    flags = ["--data", "digits", "--model", "hierarchical_vae", "--engine", "pyro", "--out", str(tmp_path)]
    with pytest.raises(UnfitError, match=r"'hierarchical_vae' has other latent sites than one z.*fit\.sample"):
        samples.main(flags)
    assert not list(tmp_path.rglob("rows.csv"))
