"""Loaded by Python itself into a worker under test: notes what the process writes to and connects to.

Also prints on each connection, inside whatever context the framework's client has then: the line must arrive in the
log of the run. Python 3.8 syntax.
"""

import json
import os
import sys

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_file = os.open(os.environ["AGENTFORGE_OBSERVATIONS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _note(kind, what):
    os.write(_file, (json.dumps([kind, str(what)]) + "\n").encode())


def _absolute(path):
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links stay as they were named)


def _watch(event, args):
    if event == "open":
        path, _, flags = args
        if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITING:
            _note("write", _absolute(path))
    elif event in ("os.mkdir", "os.rename", "os.symlink", "os.link"):
        _note("write", _absolute(args[0 if event == "os.mkdir" else 1]))
    elif event == "socket.connect":
        _note("connect", args[1])
        print("connects to", args[1])
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        _note("process", args[0])


sys.addaudithook(_watch)
