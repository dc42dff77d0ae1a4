"""Folders that foreign code has filled can be removed, whatever it made of them."""

import os
from pathlib import Path

from agentforge.workers.removal import remove_tree


def test_folders_within_each_other_by_the_thousand_are_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    top = tmp_path / "top"
    top.mkdir()
    before = Path.cwd()
    try:
        os.chdir(top)
        for _ in range(3000):
            os.mkdir("d")  # noqa: PTH102  by its name alone: the whole path is too long
            os.chdir("d")
        Path("link").symlink_to(kept)
    finally:
        os.chdir(before)
    remove_tree(top)
    assert not top.exists()
    assert kept.exists()
