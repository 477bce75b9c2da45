"""The report: the same bytes for the same files, nothing from outside read as HTML, and a page that can be read."""

import csv
import html
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from frames import FIGURE2, FIGURE3, HOSTILE, run

from comparisons import cli, report
from comparisons.disk import writing
from comparisons.paper import answer, found, made, pictures, plots, reproduction
from comparisons.paper.report import Comparison
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Word
from comparisons.runner import store
from comparisons.runner.rows import to_csv

ROOT = Path(__file__).parents[2]
FREY = {**FIGURE2, "data": "frey", "n_train": 1600, "n_hidden": 200, "model": "vae_gaussian", "n_latent": 10}
VOID = {"meta", "link", "img", "br"}


def some_rows(figure: dict[str, Any], metrics: tuple[str, ...], backends: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return two seeds of every backend on both splits, at four points, and a run under another setting."""
    rows = []
    for b, backend in enumerate(backends):
        for metric in metrics:
            for split in ("train", "test"):
                for seed, method in ((0, ""), (1, ""), (0, "theta=ml")):
                    values = {n: -150.0 + 10 * i - b - seed for i, n in enumerate((1e5, 1e6, 1e7, 2e7))}
                    changes = {"backend": backend, "metric": metric, "split": split, "seed": seed, "method": method}
                    rows += run(values, **{**figure, **changes})
    return rows


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A folder in which everything was run, by people who choose hostile names."""
    return fill(tmp_path / "reports")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder, with the report in it: for tests that only look."""
    out = fill(tmp_path_factory.mktemp("finished") / "reports")
    assert report.main(["--out", str(out)]) == 0
    return out


def fill(out: Path) -> Path:
    """Write the rows, manifests, images and tables of every comparison."""
    backends = ("aevb", "wake_sleep", HOSTILE)
    figure2 = [*some_rows(FIGURE2, ("elbo_nats",), backends), *some_rows(FREY, ("elbo_nats",), backends)]
    figure2 += run({1e6: -1.0}, method=HOSTILE) + run({1e6: 3.0}, data=HOSTILE, model=HOSTILE)
    metrics = ("log_px_quadrature_nats", "log_px_appendix_d_nats")
    figure3 = [
        one
        for n in (1000, 50_000)
        for one in some_rows({**FIGURE3, "n_train": n}, metrics, ("aevb", "monte_carlo_em", "wake_sleep"))
    ]
    environment = {
        "command": f"python -m comparisons.x {HOSTILE}",
        "commit": HOSTILE,
        "python": HOSTILE,
        "processor": HOSTILE,
        "versions": {"numpy": HOSTILE},
        "settings": {"device": HOSTILE},
    }
    for folder, rows in (("lower_bound", figure2), ("marginal_likelihood", figure3)):
        rows = [{**row, "cell": f"cell{i % 7}"} for i, row in enumerate(rows)]
        writing.write(out / folder / "rows.csv", to_csv(rows))
        writing.write(out / folder / "table.md", "")
        for cell in range(7):
            writing.write_json(out / folder / "cells" / f"cell{cell}" / "manifest.json", environment)
    for folder, names in (("manifold", ("mnist", "frey")), ("samples", ("mnist-2", "mnist-10"))):
        for name in names:
            pixels = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
            facts = {
                **environment,
                "title": HOSTILE,
                "latents": HOSTILE,
                "cell": HOSTILE,
                "shape": [40, 60],
                "pixels_sha256": "0",
                "fit": {"command": HOSTILE, "commit": HOSTILE, "bound": -1.0},
                "settings": {
                    "backend": HOSTILE,
                    "engine": HOSTILE,
                    "n_latent": 2,
                    "n_hidden": 5,
                    "samples": 10,
                    "seed": 0,
                    "theta": HOSTILE,
                },
            }
            writing.write(out / folder / f"{name}.png", pictures.png(pixels))
            writing.write_json(out / folder / f"{name}.json", facts)
        writing.write(out / folder / "table.md", "")
    for name, column in NAMED.items():
        rows = pd.read_csv(ROOT / "reports" / name / "rows.csv")
        named = rows.part.eq("memory") if name == "speed" else slice(None)
        rows.loc[named, column] = HOSTILE
        writing.write(out / name / "rows.csv", rows.to_csv(index=False))
        writing.write(out / name / "table.md", "")
        writing.write_json(out / name / "manifest.json", environment)
    writing.write(out / "full_vb" / "figure.svg", SVG)
    return out


COMPARISONS = [part for part in report.sections() if isinstance(part, Comparison)]
NAMED = {  # a column of each comparison's rows in which somebody's words may stand
    "attempts": "attempt",
    "judge_again": "backend",
    "full_vb": "backend",
    "calibration": "settings",
    "inference_gap": "backend",
    "bounds": "covariance",
    "gradient_variance": "cost",
    "posteriors": "backend",
    "closed_form": "data",
    "guide_families": "title",
    "restoration": "backend",
    "embedding": "data",
    "reliability": "injection",
    "speed": "contestant",
}
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" viewBox="0 0 40 20">'
    '<script>document.title = "owned"</script><rect width="40" height="20"/></svg>'
)


class Reader(HTMLParser):
    """Collects the elements of a page, and sees to it that each one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def built(out: Path) -> Reader:
    return Reader((out / "index.html").read_text())


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_same_files_give_the_same_bytes_whatever_the_order_of_rows(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    shutil.copytree(finished, out)
    (out / "figures" / "figure2-mnist-7.svg").touch()  # of an earlier report
    rows = [f"{name}/rows.csv" for name in ("lower_bound", "marginal_likelihood")]
    for path in (out / name for name in rows):
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([head, *lines[::-1]]) + "\n")
    assert report.main(["--out", str(out)]) == 0
    first, second = files(finished), files(out)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set(rows)


def test_hostile_names_are_text(finished: Path) -> None:
    reader = built(finished)
    assert {name for name, _ in reader.elements} <= {
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "div",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "a",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "img",
        "figcaption",
        "details",
        "summary",
        "pre",
        "code",
        "span",
        "strong",
    }
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert any(HOSTILE in words for words in reader.words)
    markdown = (finished / "README.md").read_text()
    assert "<" not in markdown
    for path in (finished / "figures").glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert not tags & {"script", "image", "img", "foreignObject", "a"}


def test_every_comparison_has_its_hostile_name_in_its_section(finished: Path) -> None:
    assert NAMED.keys() == {part.name for part in COMPARISONS}
    sections = (finished / "index.html").read_text().split('<section id="')[1:]
    texts = {section.partition('"')[0]: section for section in sections}
    assert all(html.escape(HOSTILE) in texts[name] for name in NAMED)


@pytest.mark.parametrize("part", COMPARISONS, ids=lambda part: part.name)
def test_the_page_shows_what_table_md_holds(part: Comparison) -> None:
    """The same rows make both, by one function: what the committed rows give is what lies beside them."""
    extra = found.extra(ROOT / "reports" / part.name)
    committed = (ROOT / "reports" / part.name / "table.md").read_text()
    rest = committed.partition("\n\n")[2] if committed.startswith("# ") else committed
    # The rows of speed are from before an empty cell had two blanks.
    assert markdown.printed(part.report.blocks(extra.rows)).replace("|  |", "| |") == rest.replace("|  |", "| |")


def test_every_image_lies_in_the_page_and_has_words(finished: Path) -> None:
    images = built(finished).all("img")
    assert len(images) >= 15
    for attributes in images:
        assert (attributes["src"] or "").startswith(("data:image/svg+xml;base64,", "data:image/png;base64,"))
        assert len((attributes["alt"] or "").strip()) > 20


def test_tables_of_verdicts_begin_with_what_became_of_a_curve(finished: Path) -> None:
    """And no column of theirs holds one value: the caption has it, with the number of the report's own tables."""
    for text in ((finished / "index.html").read_text(), (finished / "README.md").read_text()):
        heads = re.findall(r"verdict(?:<.*?>| \| )+ours(?:<.*?>| \| )+paper", text)
        assert heads and "Table R1." in text and "Figure R1." in text and "In every line: split test" in text


def test_the_report_is_cited_by_the_name_that_the_checkout_has(finished: Path) -> None:
    assert f'title: "{made.SUITE}"' in (ROOT / "CITATION.cff").read_text()
    assert html.escape(made.SUITE) in (finished / "index.html").read_text()
    assert made.SUITE in (finished / "README.md").read_text()


def test_every_link_leads_somewhere(finished: Path) -> None:
    reader = built(finished)
    names = {attributes["id"] for attributes in reader.all("section")}
    for attributes in reader.all("a"):
        target = attributes["href"] or ""
        if target.startswith("#"):
            assert target[1:] in names
        elif not target.startswith("https://arxiv.org/"):
            assert (finished / unquote(target)).is_file(), target


def test_headings_do_not_skip_a_level(finished: Path) -> None:
    levels = [int(name[1]) for name, _ in built(finished).elements if name in ("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_an_empty_folder_says_that_nothing_was_run(tmp_path: Path) -> None:
    assert report.main(["--out", str(tmp_path)]) == 0
    words = " ".join(built(tmp_path).words)
    assert "No comparison has been run into this folder yet." in words and "paper" not in words


def test_the_verdicts_are_written_as_rows(finished: Path) -> None:
    with (finished / "verdicts.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = (
        r
        for r in rows
        if (r["data"], r["n_latent"], r["backend"], r["split"], r["at"]) == ("mnist", "3", "aevb", "test", "1e6")
        and r["figure"] == "figure2"
    )
    # seeds 0 and 1 at -140 and -141; the paper is at -153.0
    assert (float(row["value"]), row["seeds"], row["verdict"]) == (-140.5, "2", "above the paper")
    assert float(row["error"]) == pytest.approx(0.5) and float(row["paper"]) == pytest.approx(-153, abs=0.1)


def test_what_is_worse_says_what_other_settings_do(finished: Path) -> None:
    """Frey Face: -140.5, the paper at 792. And with other settings, one seed of them: -140."""
    there = found.read(finished)
    lines = [line for line in reproduction.causes(there, "figure2") if line.startswith("Frey Face, 10")]
    assert len(lines) == len([v for v in there.verdicts if v.word == "below the paper" and v.curve.figure == "figure2"])
    (one,) = (line for line in lines if "AEVB on test at 1 million points" in line)
    assert "-140.0 (below the paper) with theta=ml, numpyro, step size" in one
    assert "No other run" not in one


def test_no_verdict_rests_on_what_the_estimator_flags_and_quadrature_says_how_far_it_is_off(tmp_path: Path) -> None:
    """One run on the paper's curve by quadrature, 60 nats below it by an estimator that doubts half its points."""
    facts = {**FIGURE3, "n_train": 1000, "backend": "monte_carlo_em"}
    papers = {**facts, "metric": "log_px_appendix_d_nats"}
    rows = run({1e6: -150.0}, **{**facts, "metric": "log_px_quadrature_nats"})
    rows += run({1e6: -210.0}, **papers, flagged=0.5) + run({1e6: -151.0}, **papers, method="start=annealed")
    writing.write(tmp_path / "marginal_likelihood" / "rows.csv", to_csv(rows))
    there = found.read(tmp_path)
    (line,) = reproduction.causes(there, "figure3")
    assert (
        "By quadrature the same runs are at -150.0 (above the paper): the estimator is -60.0 off, and flags 50%" in line
    )
    assert "At the same points seen: -151.0 (reproduced) with start=annealed" in line
    (told,) = (row for row in reproduction.experiments(there, "figure3") if "start=annealed" in row)
    assert "the paper's estimator" in told
    shown = [row for row in reproduction.verdict_rows(there.verdicts) if "-210.00" in row and "50%" in row]
    assert shown and all(Word("not trusted", "soft") in row for row in shown)
    assert "In 1 more the estimator flags its own result" in answer.summary(there)


def test_words_of_a_figure_say_after_how_many_points_each_curve_ends(tmp_path: Path) -> None:
    facts = {**FIGURE3, "n_train": 50000, "metric": "log_px_quadrature_nats"}
    rows = run({1e7: -132.0, 6e7: -128.0}, **{**facts, "backend": "aevb", "samples": int(6e7)})
    rows += run({1e7: -144.0}, **{**facts, "backend": "wake_sleep"})
    writing.write(tmp_path / "marginal_likelihood" / "rows.csv", to_csv(rows))
    (plot,) = (p for p in plots.figure3(found.read(tmp_path)) if p.file == "figures/figure3-50000-test.svg")
    ours = "Ours at 60 million points: AEVB quadrature -128.0; at 10 million points: wake-sleep quadrature -144.0 nats."
    assert ours in plot.alt
    # Where ours end: the paper's AEVB at sixty million points, as what was not run, its wake-sleep at ten.
    assert "The paper's there: AEVB test -138.1, Monte Carlo EM test -150.4, wake-sleep test -143.2 nats." in plot.alt


def test_the_engines_are_compared_over_seeds(tmp_path: Path) -> None:
    """NumPyro at -99 and -101, Pyro at -97 and -101: means -100 and -99, standard errors 1 and 2."""
    facts = {**FIGURE3, "n_train": 1000, "backend": "aevb"}
    ours = {"numpyro": (-99.0, -101.0), "pyro": (-97.0, -101.0)}
    rows = [
        one
        for engine, values in ours.items()
        for seed, value in enumerate(values)
        for one in run({1e6: value}, **{**facts, "engine": engine}, seed=seed)
    ]
    writing.write(tmp_path / "marginal_likelihood" / "rows.csv", to_csv(rows))
    assert report.main(["--out", str(tmp_path)]) == 0
    line = ("MNIST", "1,000", "1 million", "AEVB", "defaults", "log p(x), test", "-1.00 ± 2.24", "-0.4", "4")
    said = "within two standard errors: 1 of 1, where 0.8 are to be expected of engines that agree; the largest is 0.4"
    for text in ((tmp_path / "README.md").read_text(), " ".join(built(tmp_path).words)):
        assert said in text and all(word in text for word in line)
    assert f"| {' | '.join(line)} |" in (tmp_path / "README.md").read_text()


def test_the_page_has_the_numbers_and_commands(finished: Path) -> None:
    words = " ".join(built(finished).words)
    for expected in (
        "-140.50 ± 0.50",
        "above the paper",
        "does not hold",
        "python -m comparisons.x",
        "theta=ml",
        "cross-entropy",
    ):
        assert expected in words, expected


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--out", "missing"], 2), (["--out", "a\0b"], 2), (["--outt", "x"], 2), (["x"], 2), (["--out", ""], 2)],
)
def test_wrong_flags_are_one_line(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: report.main(arguments))
    err = capsys.readouterr().err
    assert caught.value.code == code and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("lower_bound/rows.csv", b""),
        ("lower_bound/rows.csv", b"a,b\n1,2\n"),
        ("marginal_likelihood/rows.csv", b"\xff\xfe"),
        ("manifold/mnist.json", b"{"),
        ("calibration/rows.csv", b"\xff\xfe\xff"),
        ("calibration/manifest.json", b"\xff"),
    ],
)
def test_a_damaged_file_is_one_line(
    reports: Path, file: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (reports / file).write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: report.main(["--out", str(reports)]))
    err = capsys.readouterr().err
    assert caught.value.code == 5 and err.startswith("error: ") and err.count("\n") == 1
    assert not (reports / "index.html").exists()


def test_a_damaged_manifest_of_a_cell_leaves_the_others(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reports / "lower_bound/cells/cell0/manifest.json").write_bytes(b"{")
    assert report.main(["--out", str(reports)]) == 0
    err = capsys.readouterr().err
    assert err.startswith("cell0 is damaged, and not counted: ") and err.count("\n") == 1
    assert (reports / "index.html").exists()


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, without a window."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "THE REPORT WAS NOT LOOKED AT: there is no chromium; apt-get install --no-install-recommends chromium"
        pytest.fail(reason) if os.environ.get("REQUIRE_CHROMIUM") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # CI runs as root
        yield launched
        launched.close()


@pytest.mark.parametrize("kind", ["hostile", "committed", "empty", "own"])
def test_the_page_can_be_read_on_any_screen(browser: Any, finished: Path, tmp_path: Path, kind: str) -> None:
    folder = finished if kind == "hostile" else tmp_path / kind
    if kind == "committed":
        leave = shutil.ignore_patterns("*.safetensors", "lock", "progress.json", ".*")
        shutil.copytree(ROOT / "reports", folder, ignore=leave)
    if kind != "hostile":
        folder.mkdir(exist_ok=True)
        if kind == "own":
            name = folder / "marginal_likelihood"
            name.mkdir()
            rows = store.read_rows(ROOT / "reports" / "marginal_likelihood" / "rows.csv")
            rows[rows.data == "digits"].to_csv(name / "rows.csv", index=False)
        report.main(["--out", str(folder)])
    for width in (390, 1200):
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True, is_mobile=width < 400
            )
            tab = context.new_page()
            said: list[str] = []
            asked: list[str] = []
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.on("pageerror", lambda error, said=said: said.append(str(error)))
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto((folder / "index.html").as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
            assert said == []
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            of_paper = kind in ("hostile", "committed")
            assert tab.title() == ("Auto-Encoding Variational Bayes, run again" if of_paper else "Runs in this folder")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
            assert tab.evaluate(broken) == []
            small = "[...document.images].filter(i => i.clientWidth < 150).length"
            assert tab.evaluate(small) == 0
            ink, paper = (
                tab.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
            )
            assert _light(paper) - _light(ink) > 150 if scheme == "light" else _light(ink) - _light(paper) > 150
            context.close()


def _light(colour: str) -> float:
    """Return the brightness, 0 to 255, of a colour as a browser writes it."""
    return sum(float(one) for one in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3
