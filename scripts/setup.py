"""Makes `.venv` with everything that AgentForge needs: `make setup` calls it with whatever python3 there is.

uv comes from the package index, in the version and with the hashes of `locks/dev.txt`; uv then makes the
environment equal to the lock and installs the four packages of this repository editable. A stamp in `.venv` names
what it was made from, so that a second call does nothing. Standard library only; the syntax of old Pythons, because
the first thing it does is to look for a new one.
"""

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "bin")
LOCK = os.path.join(ROOT, "locks", "dev.txt")
STAMP = os.path.join(VENV, ".agentforge-setup")
PACKAGES = ("packages/worker", "packages/adapters", "packages/conformance", ".")
OLDEST = (3, 11)


def main():
    """Set up, or find that nothing is to be done."""
    if sys.version_info < OLDEST:
        _continue_with_a_newer_python()
    wanted = _stamp()
    if _read(STAMP) == wanted and os.path.exists(os.path.join(BIN, "agentforge")):
        return
    if not os.path.exists(os.path.join(BIN, "python")):
        _make_venv()
    if _uv_version() != _locked_uv()[0]:
        _install_uv()
    _install_packages()
    with open(STAMP, "w") as file:
        file.write(wanted)
    _say("ready: .venv/bin/agentforge")


def _continue_with_a_newer_python():
    for minor in (13, 12, 11):
        found = shutil.which("python3.%d" % minor)
        if found:
            os.execv(found, [found, os.path.abspath(__file__)])
    version = "%d.%d" % sys.version_info[:2]
    _fail("python3 is Python %s, and AgentForge needs 3.11 or later" % version, "apt-get install python3.11-venv")


def _stamp():
    """Return what names the environment to be made: lock, project files, interpreter, place."""
    digest = hashlib.sha256()
    files = [LOCK, *(os.path.join(ROOT, package, "pyproject.toml") for package in PACKAGES)]
    for name in files:
        with open(name, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return "%s %d.%d %s\n" % (digest.hexdigest(), *OLDEST, ROOT)


def _read(name):
    try:
        with open(name) as file:
            return file.read()
    except OSError:
        return ""


def _make_venv():
    _need_venv_module()
    _say("making .venv with %s" % sys.executable)
    _run([sys.executable, "-m", "venv", "--clear", VENV])


def _need_venv_module():
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = "python%d.%d-venv" % sys.version_info[:2]
        if os.getuid() != 0 or not shutil.which("apt-get"):
            _fail("%s has no venv module" % sys.executable, "apt-get install %s (as root)" % package)
        _say("installing %s" % package)
        quiet = ["-y", "-qq", "--no-install-recommends"]
        if subprocess.call(["apt-get", "install", *quiet, package]) != 0:
            _run(["apt-get", "update", "-qq"])
            _run(["apt-get", "install", *quiet, package])


def _locked_uv():
    """Return the version of uv in the lock, and its lines."""
    lines = []
    for line in _read(LOCK).splitlines():
        if line.startswith("uv=="):
            lines = [line]
        elif lines and line.startswith(" "):
            lines.append(line)
        elif lines:
            break
    if not lines:
        _fail("locks/dev.txt has no uv", "restore the file from version control")
    return lines[0].split("==")[1].split()[0], "\n".join(lines) + "\n"


def _uv_version():
    uv = os.path.join(BIN, "uv")
    if not os.path.exists(uv):
        return ""
    words = subprocess.run([uv, "--version"], stdout=subprocess.PIPE).stdout.decode().split()
    return words[1] if len(words) > 1 else ""


def _install_uv():
    version, lines = _locked_uv()
    _say("installing uv %s" % version)
    python = os.path.join(BIN, "python")
    if subprocess.call([python, "-c", "import pip"], stderr=subprocess.DEVNULL) != 0:
        _run([python, "-m", "ensurepip", "--upgrade"])
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(lines)
        requirements.flush()
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        _run([python, "-m", "pip", "install", *options, "-r", requirements.name])


def _install_packages():
    uv = [os.path.join(BIN, "uv"), "pip"]
    environment = _uv_environment()
    _say("installing the packages of locks/dev.txt")
    _run([*uv, "sync", "--quiet", "--require-hashes", LOCK], environment)
    editable = [part for package in PACKAGES for part in ("-e", os.path.join(ROOT, package))]
    _run([*uv, "install", "--quiet", "--no-deps", *editable], environment)


def _uv_environment():
    """Return the environment for uv, which does not read pip's settings: the index that pip is told to use."""
    environment = dict(os.environ, VIRTUAL_ENV=VENV, UV_PYTHON_DOWNLOADS="never")
    environment.pop("UV_EXCLUDE_NEWER", None)
    if "PIP_CERT" in environment:
        environment.setdefault("SSL_CERT_FILE", environment["PIP_CERT"])
    index = environment.get("PIP_INDEX_URL") or _pip_index()
    if index and not (environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")):
        environment["UV_DEFAULT_INDEX"] = index
    return environment


def _pip_index():
    """Return `index-url` of pip's configuration; a later file of pip's order wins, so they are read from the last."""
    home = os.path.expanduser("~")
    files = [
        os.environ.get("PIP_CONFIG_FILE", ""),
        os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "pip", "pip.conf"),
        os.path.join(home, ".pip", "pip.conf"),
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


def _run(command, environment=None):
    status = subprocess.call(command, env=environment, cwd=ROOT)
    if status != 0:
        _fail("`%s` ended with status %d" % (" ".join(command), status), "the lines above say why; run it again")


def _say(text):
    sys.stderr.write("setup: %s\n" % text)
    sys.stderr.flush()


def _fail(text, hint):
    sys.stderr.write("error: %s\nhint: %s\n" % (text, hint))
    sys.exit(1)


if __name__ == "__main__":
    main()
