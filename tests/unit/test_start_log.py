"""What a process says at its start: kept, cut, and never more than it may be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentforge.workers.startlog import StartLog


def test_the_end_of_what_was_said_is_kept() -> None:
    log = StartLog()
    program = "import os, sys; print('first' * 500, flush=True); os.write(2, b'last \\xff words\\n')"
    subprocess.run([sys.executable, "-c", program], stdout=log.descriptor, stderr=log.descriptor, check=True)
    said = log.read()
    assert said.endswith("last \ufffd words")
    assert len(said) <= 2000
    log.close()
    log.close()
    assert log.read() == ""


def test_it_neither_grows_nor_leads_to_a_file() -> None:
    log = StartLog()
    try:
        size = os.fstat(log.descriptor).st_size
        os.pwrite(log.descriptor, b"x" * size, 0)
        with pytest.raises(PermissionError):
            os.pwrite(log.descriptor, b"x", size)
        with pytest.raises(PermissionError):
            os.ftruncate(log.descriptor, 0)
        assert str(Path(f"/proc/self/fd/{log.descriptor}").readlink()).startswith("/memfd:")
    finally:
        log.close()
