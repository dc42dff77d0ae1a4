"""Makes `.venv` with everything that AgentForge needs; `make setup` calls it with a Python that is new enough.

uv comes from the package index, in the version and with the hashes of `locks/dev.txt`; uv then makes the
environment equal to the lock and installs the four packages of this repository editable. A stamp in `.venv` names
what it was made from, so that a second call does nothing. Standard library only.
"""

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOCK = ROOT / "locks" / "dev.txt"
STAMP = VENV / ".agentforge-setup"
PACKAGES = [ROOT / "packages/worker", ROOT / "packages/adapters", ROOT / "packages/conformance", ROOT]


def main() -> None:
    """Set up, or find that nothing is to be done."""
    wanted = _stamp()
    made = all((BIN / name).exists() for name in ("python", "agentforge"))
    if made and STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not (BIN / "python").exists():
        _make_venv()
    if _installed_uv() != _locked_uv()[0]:
        _install_uv()
    _install_packages()
    _need_engine_libraries()
    STAMP.write_text(wanted)
    _say("ready: .venv/bin/agentforge")


def _stamp() -> str:
    """Return what names the environment to be made: lock, project files, this program, the place."""
    files = [LOCK, Path(__file__), *(package / "pyproject.toml" for package in PACKAGES)]
    digests = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return "\n".join([*digests, str(ROOT), ""])


def _make_venv() -> None:
    _need_venv_module()
    _say(f"making .venv with {sys.executable}")
    _run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def _need_venv_module() -> None:
    """Debian keeps `ensurepip`, without which there is no virtual environment, in a package of its own."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if os.getuid() != 0 or not shutil.which("apt-get"):
            _fail(f"{sys.executable} has no venv module", f"apt-get install {package} (as root), then run this again")
        _install_system_package(package)


def _need_engine_libraries() -> None:
    """The embedded model's engine is linked to OpenMP, which a bare Debian lacks; all the rest works without."""
    command = [str(BIN / "python"), "-c", "import xllamacpp"]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode == 0 or "libgomp" not in tried.stderr:
        return
    if os.getuid() == 0 and shutil.which("apt-get"):
        _install_system_package("libgomp1")
    else:
        _say("the embedded model lacks libgomp.so.1; hint: apt-get install libgomp1 (as root)")


def _install_system_package(name: str) -> None:
    _say(f"installing {name}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-qq"], environment)
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", name], environment)


def _locked_uv() -> tuple[str, str]:
    """Return the version of uv in the lock, and its lines."""
    lines = LOCK.read_text().splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith("uv==")]
    if not starts:
        _fail("locks/dev.txt has no uv", "restore the file from version control")
    end = next((n for n in range(starts[0] + 1, len(lines)) if not lines[n].startswith(" ")), len(lines))
    return lines[starts[0]].split("==")[1].split()[0], "".join(lines[starts[0] : end])


def _installed_uv() -> str:
    if not (BIN / "uv").exists():
        return ""
    words = subprocess.run([BIN / "uv", "--version"], capture_output=True, text=True).stdout.split()
    return words[1] if len(words) > 1 else ""


def _install_uv() -> None:
    version, lines = _locked_uv()
    _say(f"installing uv {version}")
    python = str(BIN / "python")
    if subprocess.run([python, "-c", "import pip"], stderr=subprocess.DEVNULL).returncode != 0:
        _run([python, "-m", "ensurepip"])
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(lines)
        requirements.flush()
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        _run([python, "-m", "pip", "install", *options, "-r", requirements.name])


def _install_packages() -> None:
    uv = [str(BIN / "uv"), "pip"]
    environment = _uv_environment()
    _say("installing the packages of locks/dev.txt")
    _run([*uv, "sync", "--quiet", "--require-hashes", str(LOCK)], environment)
    editable = [part for package in PACKAGES for part in ("-e", str(package))]
    _run([*uv, "install", "--quiet", "--no-deps", *editable], environment)


def _uv_environment() -> dict[str, str]:
    """Return the environment for uv; it does not read pip's settings, so the index that pip uses is told to it."""
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV), "UV_PYTHON_DOWNLOADS": "never"}
    environment.pop("UV_EXCLUDE_NEWER", None)
    if "PIP_CERT" in environment:
        environment.setdefault("SSL_CERT_FILE", environment["PIP_CERT"])
    index = environment.get("PIP_INDEX_URL") or _pip_index()
    if index and not (environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")):
        environment["UV_DEFAULT_INDEX"] = index
    return environment


def _pip_index() -> str:
    """Return `index-url` of pip's configuration; a later file of pip's order wins, so they are read from the last."""
    home = Path.home()
    files: list[str | Path] = [
        os.environ.get("PIP_CONFIG_FILE", ""),
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        home / ".pip" / "pip.conf",
        "/etc/xdg/pip/pip.conf",
        "/etc/pip.conf",
    ]
    for name in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(name)
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("install", "global"):
            if parser.has_option(section, "index-url"):
                return parser.get(section, "index-url").strip()
    return ""


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    status = subprocess.run(command, env=environment, cwd=ROOT).returncode
    if status != 0:
        _fail(f"`{' '.join(command)}` ended with status {status}", "the lines above say why; then run it again")


def _say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def _fail(text: str, hint: str) -> NoReturn:
    print(f"error: {text}\nhint: {hint}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
