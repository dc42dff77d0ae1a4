"""A machine to attack: private namespaces in which every file that can be written is a copy.

A program, started by `conftest.py` under `unshare`; it is the first process of its own pid namespace. It covers the
file systems, plants canaries, starts the services and processes of others, and then runs `world.py` as the user whose
host it is, once for each level. It prints one JSON object: what came of the attacks, the secrets, what was changed.

    unshare --mount --net --pid --ipc --uts --fork ... python machine.py FOLDER USER SETTINGS

FOLDER is an empty one to mount on; USER is `root` (the host is root's), `user` (root makes the machine, the host is
an ordinary user's) or `self` (an ordinary user in a user namespace makes both).
"""

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from attacks.registry import MARK
from services import serve

__all__ = ["main"]

LEVELS = ("standard", "none")
_SRV = Path("/srv")
_ME, _OTHER = 7001, 7002
_OUTSIDE, _NAME_SERVER, _METADATA = "10.99.0.1", "10.99.0.53", "169.254.169.254"
_REAL_FILES = (
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "overlay",
    "f2fs",
    "zfs",
    "9p",
    "virtiofs",
    "fuse",
    "nfs4",
    "tmpfs",
)
_HERE = Path(__file__).parent
_WORLD_TIMEOUT_S = 300


class Canaries(dict[str, str]):
    """Secrets by name, made when they are first asked for."""

    def __missing__(self, name: str) -> str:
        self[name] = f"canary-{name}-{secrets.token_hex(12)}"
        return self[name]


class Machine:
    """The machine of one user, and how it is put back after each level."""

    def __init__(self, folder: Path, kind: str, settings: dict[str, Any]) -> None:
        self.kind = kind
        self.settings = settings
        self.canaries = Canaries()
        self.targets: dict[str, Any] = {}
        self.changes: dict[str, Callable[[], bool]] = {}
        """Whether a target of the writing attacks has changed; asking puts it back."""
        self.privileged = kind != "self"
        self.user = {"root": 0, "user": _ME, "self": os.getuid()}[kind]
        self.home = _SRV / "home/me"
        self.project = self.home / "project"
        self._folder = folder

    # ---- file systems

    def cover(self) -> None:
        """Put a copy over everything that can be written: what is changed stays in memory, and in this namespace."""
        _mount("none", "/", flags="--make-rprivate")
        _mount("tmpfs", self._folder, "tmpfs")
        covered = [Path(each) for each in self.settings["needs"]] if not self.privileged else _folders()
        for number, path in enumerate(covered):
            layers = [self._folder / f"{number}-{name}" for name in ("upper", "work")]
            for layer in layers:
                layer.mkdir()
            shutil.copystat(path, layers[0])
            if self.privileged:
                os.chown(layers[0], path.stat().st_uid, path.stat().st_gid)
            options = f"lowerdir={path},upperdir={layers[0]},workdir={layers[1]}"
            _mount("overlay", path, "overlay", options if self.privileged else options + ",userxattr")
        if self.privileged:
            _mount("none", "/", options="remount,bind,ro")  # what no copy covers: the root folder itself
        _mount("tmpfs", _SRV, "tmpfs", "mode=0755")
        for path in ("/tmp", "/run"):
            _mount("tmpfs", path, "tmpfs", "mode=1777" if path == "/tmp" else "mode=0755")
        _mount("proc", "/proc", "proc")
        self._make_dev()
        if self.privileged:
            Path("/root").chmod(0o755)  # an interpreter may be below it; in this copy nothing else is
            for line in (
                f"me:x:{_ME}:{_ME}::{self.home}:/bin/sh",
                f"other:x:{_OTHER}:{_OTHER}::/srv/home/other:/bin/sh",
            ):
                _append("/etc/passwd", line)

    def _make_dev(self) -> None:
        fresh = Path("/run/dev")
        fresh.mkdir()
        _mount("tmpfs", fresh, "tmpfs", "mode=0755")
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            (fresh / name).touch()
            _mount(Path("/dev", name), fresh / name, flags="--bind")
        for name in ("canary", "mem", "kvm"):  # a harmless device under names that are none
            (fresh / name).touch()
            _mount("/dev/zero", fresh / name, flags="--bind")
        for name in ("pts", "shm"):
            (fresh / name).mkdir()
        _mount("devpts", fresh / "pts", "devpts", "newinstance,ptmxmode=0666,mode=0620")
        _mount("tmpfs", fresh / "shm", "tmpfs", "mode=1777")
        (fresh / "ptmx").symlink_to("pts/ptmx")
        for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            (fresh / name).symlink_to(f"/proc/self/{target}")
        _mount(fresh, "/dev", flags="--move")

    def plant(self) -> None:
        """Make the canaries that are files, and what the writing attacks aim at."""
        for path in (
            _SRV / "home",
            self.home,
            self.home / ".ssh",
            self.project,
            self.home / "elsewhere",
            self.home / "outside",
        ):
            path.mkdir(mode=0o755 if path == _SRV / "home" else 0o700)
            self._mine(path)
        self._file("ssh_key", "ssh-key", self.home / ".ssh/id_ed25519", 0o600)
        self._file("dotenv", "dotenv", self.project / ".env", 0o600)
        self._file("tmp_file", "tmp", Path("/tmp/af-canary"), 0o600)
        self._file("bashrc", "bashrc", self.home / ".bashrc", 0o644)
        self._file("elsewhere", "elsewhere", self.home / "elsewhere/secret.txt", 0o600)
        self._file("in_outside", "outside", self.home / "outside/file.txt", 0o600)
        self._file("shm", "shm", Path("/dev/shm/af-canary"), 0o600)
        environment = Path(self.settings["home"]) / "environments" / "other-canary"
        environment.mkdir()
        self._file("other_environment", "environment", environment / "secret", 0o644)
        if self.privileged:
            self._plant_for_others()
        early = Path(self.settings["early"])
        shutil.copy(_HERE / "agents/early.py", early / "af_early.py")
        (early / "af_early.pth").write_text("import af_early\n")
        (early / "af_early_mode").touch()
        self._mine(early / "af_early_mode")
        self.targets["early"] = str(early)
        log = self.home / "open.log"
        self._file("log", "log", log, 0o644)
        self.targets |= {
            "home": str(self.home),
            "project": str(self.project),
            "state": str(self.project / ".agentforge"),
            "shm_name": "af-canary",
            "device": "/dev/canary",
            "outside_folder": str(self.home / "outside"),
            "read_only_mount": "/srv/read-only",
            "name_server": _NAME_SERVER,
            "outside": _OUTSIDE,
            "site_packages": self.settings["site_packages"],
            "stdlib": self.settings["stdlib"],
            "open_log": str(log),
        }
        Path("/srv/read-only").mkdir()
        _mount("tmpfs", "/srv/read-only", "tmpfs", "ro")
        self._watch()

    def _file(self, target: str, canary: str, path: Path, mode: int) -> None:
        path.write_text(self.canaries[canary] + "\n")
        path.chmod(mode)
        self._mine(path)
        self.targets[target] = str(path)

    def _mine(self, path: Path) -> None:
        if self.privileged:
            os.chown(path, self.user, self.user)

    def _plant_for_others(self) -> None:
        others = _SRV / "home/other/letter.txt"
        others.parent.mkdir(mode=0o755)
        self._file("other_users_file", "other-user", others, 0o600)
        os.chown(others, _OTHER, _OTHER)
        _append("/etc/shadow", f"canary:{self.canaries['shadow']}:::::::")
        programs = Path("/usr/local/bin")
        for name, source in (("af-setuid", self.settings["python"]), ("af-capable", "/bin/cat")):
            shutil.copy(Path(source).resolve(), programs / name)
        (programs / "af-setuid").chmod(0o4755)
        # struct vfs_cap_data, capability(7): revision 2 with the effective bit, CAP_DAC_READ_SEARCH permitted
        os.setxattr(programs / "af-capable", "security.capability", struct.pack("<5I", 0x2000001, 1 << 2, 0, 0, 0))
        self.targets |= {
            "setuid_program": str(programs / "af-setuid"),
            "capable_program": str(programs / "af-capable"),
            "system_folders": [
                "/usr/local/lib",
                "/usr/local/bin",
                "/etc/cron.d",
                "/etc/ld.so.conf.d",
                "/lib/systemd/system",
            ],
        }
        self._take_home()

    def _take_home(self) -> None:
        """Give the AgentForge home to the host's user: all but the files of the environments, which it only reads."""
        home = Path(self.settings["home"])
        whole = [each for each in home.iterdir() if each.name != "environments"]
        whole += [home / "environments" / each for each in (".claims", ".staging")]
        for folder in (
            home,
            home / "environments",
            *map(Path, (self.settings["site_packages"], self.settings["early"])),
        ):
            self._mine(folder)
        subprocess.run(["chown", "-R", f"{self.user}:{self.user}", *whole], check=True)

    def _watch(self) -> None:
        """Say what is looked at for marks."""
        places = {
            "bashrc": [self.targets["bashrc"]],
            "site-packages": [self.targets["site_packages"] + "/" + MARK],
            "project": [str(self.project / "agentforge.toml")],
            "state": [str(self.project / ".agentforge" / MARK)],
            "tmp": [self.targets["tmp_file"]],
            "log": [self.targets["open_log"]],
            "interpreter": [self.targets["stdlib"] + "/" + MARK],
            "system": [f"{folder}/{MARK}" for folder in self.targets.get("system_folders", ())],
            "bystander-signalled": ["/srv/bystander/signalled"],
            "bystander-written": ["/srv/bystander/written"],
        }
        for name, paths in places.items():
            self.changes[name] = lambda paths=paths: _any_marked(paths)
        self.changes["hostname"] = _host_name_changed
        self.changes["sysctl"] = lambda: _restored("/proc/sys/net/ipv4/ip_default_ttl", "64")
        self.changes["outside-folder"] = lambda: _emptied(self.home / "outside")
        self.changes["outside-owner"] = lambda: _given_away(self.home / "outside")

    # ---- services and processes

    def serve(self) -> None:
        """Bring the private network up and start what listens on it."""
        for number, address in enumerate((_OUTSIDE, _NAME_SERVER, _METADATA)):
            _add_address(f"lo:{number}", address)
        _bring_up("lo")
        resolving = Path("/run/resolv.conf")
        resolving.write_text(f"nameserver {_NAME_SERVER}\noptions timeout:1 attempts:1\n")
        _mount(resolving, "/etc/resolv.conf", flags="--bind")
        switch = Path("/run/nsswitch.conf")
        switch.write_text("passwd: files\ngroup: files\nhosts: files dns\n")
        _mount(switch, "/etc/nsswitch.conf", flags="--bind")
        self.targets |= serve(self.canaries, _METADATA, _NAME_SERVER)
        os.chmod(self.targets["pathname_socket"], 0o777)

    def start_bystanders(self) -> None:
        """Start a process of another user, and one of the same, that hold secrets."""
        folder = _SRV / "bystander"
        folder.mkdir(mode=0o755)
        self._mine(folder)
        self.targets["ipc_key"] = 0x6AF
        self.targets["queue_name"] = "af-canary"
        self.targets["key_name"] = "af-canary"
        self.targets["bystander"] = self._start("bystander.py", self.user, {})
        if self.privileged:
            told = self._start("bystander.py", _OTHER, {"OTHER": self.canaries["other-environ"]}, "idle")
            self.targets["others_pid"] = told["pid"]
        if self.kind == "root":
            self._make_cgroup()

    def _start(self, program: str, user: int, variables: dict[str, str], *arguments: str) -> dict[str, Any]:
        names = ("bystander-memory", "bystander-descriptor", "sysv", "message-queue", "posix-queue", "keyring")
        secret = {name: self.canaries[name] for name in names}
        process = subprocess.Popen(
            [self.settings["python"], str(_HERE / program), *arguments, self.canaries["command-line"]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **variables},
            preexec_fn=self._as(user),
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**secret, "targets": self.targets}).encode() + b"\n")
        process.stdin.flush()
        return {"pid": process.pid, **json.loads(process.stdout.readline())}

    def _as(self, user: int) -> Callable[[], None]:
        def become() -> None:
            if self.privileged:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            else:
                ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, CLEAR_ALL: an ordinary user from the exec on

        return become

    def _make_cgroup(self) -> None:
        hierarchies = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup/unified")]
        for each in hierarchies:
            if (each / "cgroup.procs").exists() and os.access(each, os.W_OK):
                place = each / f"af-canary-{secrets.token_hex(4)}"
                place.mkdir()
                self.targets["cgroup"] = str(place)
                return

    # ---- levels

    def run(self) -> dict[str, Any]:
        """Run the world once for each level."""
        levels: dict[str, Any] = {}
        for level in self.settings.get("levels", LEVELS):
            for changed in self.changes.values():
                changed()
            report = self._world(level)
            report["changed"] = sorted(
                set(report.get("changed", ())) | {name for name, look in self.changes.items() if look()}
            )
            self.canaries |= report.pop("secrets", {})
            levels[level] = report
        return {"levels": levels, "secrets": dict(self.canaries), "kind": self.kind}

    def _world(self, level: str) -> dict[str, Any]:
        targets = Path(f"/run/targets-{level}.json")
        targets.write_text(json.dumps(self.targets))
        variables = {
            **self.settings["variables"],
            "HOME": str(self.home),
            "OPENAI_API_KEY": "sk-real-key-" + secrets.token_hex(8),
            "XDG_RUNTIME_DIR": "/run/user-me",
            "AGENTFORGE_HOST": "inline",
            "AGENTFORGE_HEALTH_INTERVAL_S": "0",
            "AGENTFORGE_HOME": self.settings["home"],
        }
        runtime = Path("/run/user-me")
        runtime.mkdir(mode=0o700, exist_ok=True)
        self._mine(runtime)
        command = [self.settings["python"], str(_HERE / "world.py"), level, self.kind, str(targets)]
        command.append(json.dumps(self.settings.get("only", [])))
        with open("/run/world.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=variables,
                cwd=self.project,
                preexec_fn=self._as(self.user),
            )
            try:
                out, _ = process.communicate(json.dumps(self.canaries).encode(), timeout=_WORLD_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                out = b""
        said = Path("/run/world.log").read_text(errors="replace")[-8000:]
        try:
            return dict(json.loads(out.splitlines()[-1]), log=said)
        except (IndexError, ValueError):
            return {"failed": said or f"the world at level {level} ended with {process.returncode}"}


# ---- mounts


def _mount(source: object, target: object, kind: str = "", options: str = "", *, flags: str = "") -> None:
    words = [
        "mount",
        *([flags] if flags else []),
        *(["-t", kind] if kind else []),
        *(["-o", options] if options else []),
    ]
    both = [str(target)] if flags.startswith("--make") else [str(source), str(target)]
    done = subprocess.run([*words, *both], stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise OSError(f"{target}: {done.stderr.decode(errors='replace').strip()}")


def _folders() -> list[Path]:
    """Return the folders of the file systems that hold files: those in the root, and where others are mounted."""
    kept = ("/proc", "/sys", "/dev", "/srv", "/tmp", "/run", "/boot", "/lost+found")
    found = [each for each in sorted(Path("/").iterdir()) if each.is_dir() and not each.is_symlink()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[words.index("-") + 1] in _REAL_FILES and Path(words[4]).is_dir():
            found.append(Path(words[4]))
    return [each for each in dict.fromkeys(found) if str(each) != "/" and not _below(each, kept)]


def _below(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(each) for each in folders)


# ---- looking for changes


def _any_marked(paths: Sequence[str]) -> bool:
    return any([_marked(Path(path)) for path in paths])  # noqa: C419  all are looked at, and put back


def _marked(path: Path) -> bool:
    """Whether a file holds the mark; takes it out again."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    if MARK not in text:
        return False
    if path.name in (MARK, "signalled", "written"):
        path.unlink()
    else:
        with path.open("r+") as file:  # the same file: links to it and descriptors of it stay good
            kept = "".join(line for line in text.splitlines(True) if MARK not in line)
            file.truncate(0)
            file.write(kept)
    return True


def _host_name_changed() -> bool:
    changed = socket.gethostname() == MARK
    if changed:
        socket.sethostname("machine")
    return changed


def _restored(path: str, value: str) -> bool:
    file = Path(path)
    if not os.access(file, os.W_OK):
        return False
    changed = file.read_text().strip() == "77"
    if changed:
        file.write_text(value)
    return changed


def _emptied(folder: Path) -> bool:
    """Whether a folder holds more than its one file; puts it back."""
    more = [each for each in folder.iterdir() if each != folder / "file.txt"]
    for each in more:
        shutil.rmtree(each, ignore_errors=True) if stat.S_ISDIR(each.lstat().st_mode) else each.unlink()
    return bool(more)


def _given_away(folder: Path) -> bool:
    """Whether a folder or what is in it has another owner than the folder above; puts it back."""
    owner = folder.parent.stat().st_uid
    others = [each for each in [folder, *folder.iterdir()] if each.lstat().st_uid != owner]
    for each in others:
        os.chown(each, owner, owner, follow_symlinks=False)
    return bool(others)


# ---- network


def _add_address(label: str, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        packed = struct.pack("16sHH4s8x", label.encode(), socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, 0x8916, packed)  # SIOCSIFADDR
        mask = struct.pack("16sHH4s8x", label.encode(), socket.AF_INET, 0, socket.inet_aton("255.255.255.255"))
        fcntl.ioctl(control, 0x891C, mask)  # SIOCSIFNETMASK


def _bring_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", name.encode(), 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def _append(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def main(arguments: list[str]) -> None:
    """Make the machine, run the world, print what came of it."""
    folder, kind, settings = Path(arguments[0]), arguments[1], json.loads(arguments[2])
    machine = Machine(folder, kind, settings)
    machine.cover()
    machine.plant()
    machine.serve()
    machine.start_bystanders()
    try:
        print(json.dumps(machine.run()))
    finally:
        if "cgroup" in machine.targets:
            with contextlib.suppress(OSError):
                Path(machine.targets["cgroup"]).rmdir()


if __name__ == "__main__":
    main(sys.argv[1:])
