"""Removing folders that foreign code has written into."""

import shutil
import subprocess
from pathlib import Path

__all__ = ["remove_tree"]


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done; links are not followed.

    Thousands of folders within each other are too deep for `shutil` before Python 3.13, not for `rm`.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False, stderr=subprocess.DEVNULL)
