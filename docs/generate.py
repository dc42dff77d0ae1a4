"""Writes the parts of the reference that come out of the code: `python docs/generate.py [--check]`.

A page keeps its prose by hand; what stands between `<!-- generated: NAME -->` and `<!-- /generated -->` is written
here, by the function of that name in `docs/generators/`. `openapi.json` is written whole. A test holds all of it
current.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `generators` is beside this file

from generators import BLOCKS, FILES

__all__ = ["main", "stale", "written"]

DOCS = Path(__file__).parent
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def written() -> Iterator[tuple[Path, str]]:
    """Yield each file that has generated parts, with the text that it should have."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text("utf-8")
        if _BLOCK.search(text):
            yield page, _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]().strip()}\n\n{found[3]}", text)
    for name, make in FILES.items():
        yield DOCS / name, make()


def stale() -> list[Path]:
    """Return the files that are not what they should be."""
    return [file for file, text in written() if not file.exists() or file.read_text("utf-8") != text]


def main() -> int:
    """Write what is stale, or with `--check` only name it; returns the exit code."""
    check = "--check" in sys.argv[1:]
    files = {file: text for file, text in written() if not file.exists() or file.read_text("utf-8") != text}
    for file, text in files.items():
        print(f"{'stale' if check else 'written'}: {file.relative_to(DOCS.parent)}")
        if not check:
            file.write_text(text, "utf-8")
    return 1 if check and files else 0


if __name__ == "__main__":
    sys.exit(main())
