"""A process of somebody else with secrets in it: in its memory, a descriptor, shared memory, queues, a keyring."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attacks.calls import LIBC, call
from attacks.registry import MARK

_FOLDER = Path("/srv/bystander")
_MESSAGES = 4
_KEY_LIVES_S = 600


def main() -> None:
    secret = json.loads(sys.stdin.readline())
    if "idle" in sys.argv:
        print(json.dumps({}), flush=True)
        signal.pause()
    targets = secret["targets"]
    LIBC.prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)  # PR_SET_PTRACER, any: where Yama would refuse
    memory = ctypes.create_string_buffer(secret["bystander-memory"].encode(), 64)
    writable = ctypes.create_string_buffer(64)
    descriptor = os.memfd_create("canary")
    os.write(descriptor, secret["bystander-descriptor"].encode())
    _share(targets["ipc_key"], secret["sysv"])
    queue = _queue(targets["ipc_key"], secret["message-queue"])
    _posix(targets["queue_name"], secret["posix-queue"])
    number = call(
        "add_key", b"user", targets["key_name"].encode(), secret["keyring"].encode(), len(secret["keyring"]), -4
    )
    call("keyctl", 15, number, _KEY_LIVES_S)
    signal.signal(signal.SIGURG, lambda *_: (_FOLDER / "signalled").write_text(MARK))
    told = {"address": ctypes.addressof(memory), "writable": ctypes.addressof(writable), "descriptor": descriptor}
    print(json.dumps(told), flush=True)
    while queue >= 0:
        time.sleep(0.05)
        if writable.value == MARK.encode():
            (_FOLDER / "written").write_text(MARK)
            writable.value = b""


def _share(key: int, text: str) -> None:
    number = call("shmget", key, 4096, 0o1600)
    LIBC.shmat.restype = ctypes.c_void_p
    ctypes.memmove(LIBC.shmat(number, None, 0), text.encode(), len(text))


def _queue(key: int, text: str) -> int:
    number = call("msgget", key, 0o1600)
    data = text.encode()
    LIBC.msgsnd(number, (1).to_bytes(8, sys.byteorder) + data, ctypes.c_size_t(len(data)), 0)
    return number


def _posix(name: str, text: str) -> None:
    queue = call("mq_open", name.encode(), os.O_RDWR | os.O_CREAT, 0o600, 0)
    rt = ctypes.CDLL("librt.so.1")
    for _ in range(_MESSAGES):
        rt.mq_send(queue, text.encode(), ctypes.c_size_t(len(text)), 0)


main()
