"""The last words of a command: what lies where, and what to type next."""

from pathlib import Path

from comparisons.reporting.folder import where


def test_what_is_there_is_named_and_nothing_else(tmp_path: Path) -> None:
    for name in ("rows.csv", "table.md", "mnist-2.png", "mnist-10.png", "manifest.json"):
        (tmp_path / name).touch()
    first, names, page = where(tmp_path).splitlines()
    assert first == f"The results are in {tmp_path}/:" and names == "rows.csv, table.md, *.png."
    assert page == f"A page of all results: python -m comparisons.report --out {tmp_path.parent}"


def test_a_folder_without_a_folder_of_results_has_no_page() -> None:
    assert "comparisons.report" not in where(Path("alone"))
