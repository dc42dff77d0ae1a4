"""An agent that holds secrets and goes on until it is told to end."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
import time

_workspace = []


def agent(given, ctx):
    _workspace.append(ctx.workspace)
    memory = ctypes.create_string_buffer(given["memory"].encode(), 64)
    with open(os.path.join(ctx.workspace, "secret.txt"), "w") as file:
        file.write(given["workspace"])
    child = subprocess.Popen(["/bin/sleep", "300"], env={"SECRET": given["environ"]})
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, given["port"]), daemon=True).start()
    told = {
        "pid": os.getpid(),
        "child_pid": child.pid,
        "address": ctypes.addressof(memory),
        "port": listener.getsockname()[1],
        "door": int(ctx.gateway.base_url.rpartition(":")[2].partition("/")[0]),
        "token": ctx.token,
        "workspace": ctx.workspace,
    }
    print("told " + json.dumps(told), flush=True)
    end = time.monotonic() + 280
    while time.monotonic() < end and not os.path.exists(os.path.join(ctx.workspace, "end")):
        time.sleep(0.1)
    child.kill()
    return "undisturbed"


def _serve(listener, text):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(text.encode())


def _signalled(*_):
    with open(os.path.join(_workspace[0], "signalled"), "w") as file:
        file.write("af-was-here")


signal.signal(signal.SIGUSR2, _signalled)
