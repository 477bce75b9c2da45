"""README.md, CONTRIBUTING.md and docs/: short, no number typed by hand, and true of the code where code can tell."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from frames import pipes
from test_layers import ROOMS

from comparisons import errors
from comparisons.cli import stopping
from comparisons.runner.experiment import LONG, Experiment
from comparisons.runner.watching import STATES
from inference import BACKENDS
from inference.gradients import ESTIMATORS
from inference.optim import STEP_SIZES

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
PAGES |= {f"docs/{path.name}": path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
README = PAGES["README.md"]
# The numbers that a person may type into README.md.
TYPED = [r"Kingma & Welling 2013", r"arXiv 1312\.6114", r"Figures? \d", r"Python 3\.11", r"Apache-2\.0"]


def section(page: str, title: str) -> list[list[str]]:
    """The lines of the tables under a title, without their heads."""
    text = PAGES[page].partition(f"## {title}\n")[2].partition("\n## ")[0]
    return pipes(text)[2:]


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 7000


def test_no_number_is_typed_outside_the_marks() -> None:
    """What the marks hold is written from rows; of code and commands only the comments are prose."""
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", README, flags=re.DOTALL)
    comments = "\n".join(re.findall(r"#.*", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))))
    text = re.sub(r"```.*?```|`python -m[^`]*`", "", text, flags=re.DOTALL) + comments
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where links lead
    for allowed in TYPED:
        text = re.sub(allowed, "", text)
    assert re.findall(r".*\d.*", text) == []


def test_the_version_of_python_is_the_packages() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"Python {wanted.removeprefix('>=')} or newer" in README


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {title.lower().replace(" ", "-") for title in titles}, link


def test_the_flags_name_what_there_is() -> None:
    declared = {f.metadata.get("flag") or "--" + f.name.replace("_", "-"): f for f in fields(Experiment)}
    lines = section("docs/running.md", "What a flag may be")
    named = {flag.strip("`"): set(re.findall(r"`(\w+)`", choices)) for flag, choices, _ in lines}
    assert {flag: set(declared[flag].metadata["choices"]) - {"auto"} for flag in named} == named
    assert {name.strip("`") for name, *_ in section("README.md", "Which method?")} == {*BACKENDS}
    assert [name.strip("`") for name, *_ in section("docs/running.md", "Estimators of the gradient")] == [*ESTIMATORS]
    for flag, default, text in section("docs/running.md", "Flags of a grid"):
        value = declared[flag.strip("`")].default
        assert default.strip("`") == (value[0] if isinstance(value, tuple) else str(value))
        if flag == "`--step-size`":
            assert [float(one) for one in re.findall(r"\d\.\d+", text)] == [*STEP_SIZES["adagrad"]]
        if flag == "`--optimizer`":
            assert [float(one) for one in re.findall(r"\de-\d", text)] == [*STEP_SIZES["sgd"]]
        if flag == "`--compile`":
            assert f"from {LONG} steps" in text


def test_the_states_and_exit_codes_are_those_of_the_code() -> None:
    assert {line[0].strip("`") for line in section("docs/recovery.md", "The state of a cell")} == {*STATES}
    kinds = (errors.UserError, errors.FlagError, errors.DataError, errors.NumericsError, errors.StorageError)
    codes = {0, stopping.INTERRUPTED} | {kind.exit_code for kind in kinds}
    assert {int(line[0]) for line in section("docs/running.md", "Exit codes")} == codes


def test_the_rooms_are_those_that_hold() -> None:
    """The table of `test_layers`, in words."""
    told = {}
    for name, _, allowed in section("CONTRIBUTING.md", "Rooms"):
        path = name.strip("`/").removeprefix("comparisons/").removesuffix(".py")
        told["door" if path == "*" else path] = set(allowed.split(", ")) - {"nothing"}
    assert told.pop("inference/engines") == told["inference"]
    assert told == ROOMS
