"""Numbers keep their names: the settings of every committed cell give its folder's name, under the version it has."""

import json
from pathlib import Path
from typing import Any

import pytest

from comparisons.runner.experiment import Experiment, completed, identity

FIRST_TOLD = 2  # the version of cells whose manifest does not tell it
CELLS = sorted((Path(__file__).parents[1] / "reports").glob("*/cells/*/manifest.json"))


def named(manifest: dict[str, Any]) -> str:
    """The name that its settings give a cell, under the version of its numbers."""
    experiment = Experiment(**completed(manifest["settings"]))
    return identity(experiment, manifest["data_digest"], int(manifest.get("numbers_version", FIRST_TOLD)))


@pytest.mark.parametrize("path", CELLS, ids=lambda path: path.parent.name)
def test_a_committed_cell_has_the_name_that_its_settings_give(path: Path) -> None:
    assert named(json.loads(path.read_text())) == path.parent.name


def test_there_are_committed_cells() -> None:
    assert len(CELLS) > 150
