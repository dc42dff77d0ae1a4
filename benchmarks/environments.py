"""What environments cost: disk that is really used against the sum of their sizes, and the time of a build.

Disk: every file of the environments below data folders is counted, once by its names (the sum of sizes, as `env list`
shows it) and once by its inode; uv links files from its cache, so that equal files of many environments are one on the
disk. The folders are only read. Time: builds with the packages in uv's cache (warm) and with an empty cache (cold),
each in a data folder of its own. Prints the figures and writes JSON:

    python benchmarks/environments.py --home ~/.local/share/agentforge --least-mib 1 --json environments.json
    python benchmarks/environments.py --build langchain,crewai --rounds 3 --cold
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentforge.environments import Environments, data_home
from agentforge.environments.uv import uv_program

COMMAND = Path(sys.executable).with_name("agentforge")
MIB = 2**20
Inode = tuple[int, int]


def files(folder: Path) -> Iterator[os.stat_result]:
    """Yield what the system says of everything below a folder, the folder itself included."""
    yield folder.lstat()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files(Path(entry.path))
            else:
                yield entry.stat(follow_symlinks=False)


def inodes(folder: Path) -> dict[Inode, int]:
    """Return the bytes of disk blocks by inode."""
    return {(each.st_dev, each.st_ino): each.st_blocks * 512 for each in files(folder)}


def disk(homes: Sequence[Path], cache: Path, at_most: int | None, least_mib: float = 0) -> dict[str, Any]:
    """Measure the environments of some data folders."""
    found = {each.id: each for home in homes for each in Environments(home).list()}
    environments = [each for each in found.values() if each.size_bytes >= least_mib * MIB][:at_most]
    total, names, compiled = 0, 0, 0
    on_disk: dict[Inode, int] = {}
    each_alone = []
    for environment in environments:
        seen = [(each.st_dev, each.st_ino, each.st_blocks * 512) for each in files(environment.path)]
        size = sum(blocks for _, _, blocks in seen)
        fresh = {(device, inode): blocks for device, inode, blocks in seen if (device, inode) not in on_disk}
        each_alone.append({"id": environment.id, "size_mib": mib(size), "added_mib": mib(sum(fresh.values()))})
        total, names = total + size, names + len(seen)
        on_disk |= fresh
        compiled += sum(path.lstat().st_blocks * 512 for path in environment.path.rglob("*.pyc"))
    cached = inodes(cache) if cache.is_dir() else {}
    really = sum(on_disk.values())
    shared = sum(blocks for inode, blocks in on_disk.items() if inode in cached)
    return {
        "environments": len(environments),
        "files": names,
        "sum_mib": mib(total),
        "really_mib": mib(really),
        "of_sum": round(really / total, 3) if total else None,
        "in_cache_too_mib": mib(shared),
        "own_mib": mib(really - shared),
        "compiled_mib": mib(compiled),
        "cache_mib": mib(sum(cached.values())),
        "cache_and_environments_mib": mib(sum({**cached, **on_disk}.values())),
        "same_file_system": {inode[0] for inode in cached} == {inode[0] for inode in on_disk},
        "each": each_alone,
    }


def mib(size: float) -> float:
    return round(size / MIB, 1)


def build(reference: str, folder: Path, cache: Path | None) -> float:
    """Build an environment in an empty data folder; return the seconds that the command took."""
    project, home = folder / "project", folder / "home"
    project.mkdir(parents=True)
    (project / "agentforge.toml").touch()
    variables = {**os.environ, "AGENTFORGE_HOME": str(home), "AGENTFORGE_HOST": "inline"}
    if cache is not None:
        variables["UV_CACHE_DIR"] = str(cache)
    began = time.perf_counter()
    done = subprocess.run(
        [COMMAND, "env", "build", reference], cwd=project, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return time.perf_counter() - began


def times(references: Sequence[str], rounds: int, *, cold: bool) -> list[dict[str, Any]]:
    """Measure builds; the first of a reference fills uv's cache and is not counted."""
    measured = []
    for reference in references:
        with tempfile.TemporaryDirectory(prefix="agentforge-benchmark-", dir=cache_folder().parent) as name:
            folder = Path(name)
            build(reference, folder / "first", None)
            warm = [build(reference, folder / f"warm-{number}", None) for number in range(rounds)]
            row: dict[str, Any] = {"reference": reference, "warm_s": [round(each, 2) for each in warm]}
            row["warm_median_s"] = round(statistics.median(warm), 2)
            if cold:
                row["cold_s"] = round(build(reference, folder / "cold", folder / "cache"), 2)
            measured.append(row)
            print(row)
    return measured


def cache_folder() -> Path:
    """Return where uv keeps its cache."""
    done = subprocess.run([uv_program(), "cache", "dir"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def main() -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, action="append", help="data folder whose environments are measured, without touching them"
    )
    parser.add_argument("--at-most", type=int, help="how many of them, by name")
    parser.add_argument("--least-mib", type=float, default=0, help="leave smaller ones out: those without packages")
    parser.add_argument("--build", default="", metavar="A,B", help="releases whose builds are timed")
    parser.add_argument("--rounds", type=int, default=3, help="warm builds of each")
    parser.add_argument("--cold", action="store_true", help="also one build with an empty cache: downloads everything")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.home or not options.build:
        found["disk"] = disk(options.home or [data_home()], cache_folder(), options.at_most, options.least_mib)
        print(json.dumps({key: value for key, value in found["disk"].items() if key != "each"}, indent=1))
    if options.build:
        found["builds"] = times(options.build.split(","), options.rounds, cold=options.cold)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
