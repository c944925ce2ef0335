"""Sizes: folders below app."""

from __future__ import annotations

from pathlib import Path

from scripts.check_sizes import large_folders


def _folder(root: Path, name: str, files: int) -> None:
    (root / name).mkdir(parents=True)
    for number in range(files):
        (root / name / f"m{number}.py").write_text("")


def test_a_folder_with_too_many_modules_is_a_fault(tmp_path: Path) -> None:
    _folder(tmp_path, "app/small", 25)
    _folder(tmp_path, "app/large", 26)
    _folder(tmp_path, "app/old", 26)
    _folder(tmp_path, "app/fixed", 3)
    _folder(tmp_path, "app/migrations/versions", 40)
    _folder(tmp_path, "tests/unit", 40)
    assert list(large_folders(tmp_path, {"app/migrations/versions": "", "app/old": "", "app/fixed": ""})) == [
        "app/large: 26 modules, at most 25",
        "app/fixed: no longer too large; take it out of LARGER_FOLDERS",
    ]
