import os

import pytest

from agentforge.config.reading import SETTLED_NS, file_version, read_text
from agentforge.errors.config import FileMissingError, FileSyntaxError


def test_a_file_left_alone_keeps_its_version_and_a_fresh_one_does_not(tmp_path):
    file = tmp_path / "a"
    file.write_text("x")
    changed = max(file.stat().st_mtime_ns, file.stat().st_ctime_ns)
    just_now = iter([changed + 1, changed + SETTLED_NS - 1])
    assert file_version(file, lambda: next(just_now)) != file_version(file, lambda: next(just_now))
    later = iter([changed + SETTLED_NS, changed + 2 * SETTLED_NS])
    assert file_version(file, lambda: next(later)) == file_version(file, lambda: next(later))


def test_another_content_is_another_version(tmp_path):
    file = tmp_path / "a"
    file.write_text("x")
    before = file_version(file, lambda: 0)
    file.write_text("xy")
    os.utime(file, ns=(before[0], before[0]))
    assert file_version(file, lambda: 0) != before


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"\xef\xbb\xbfname: a")
    assert read_text(file) == "name: a"


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(FileMissingError, match="can't be read: Is a directory"):
        read_text(tmp_path)


def test_a_huge_file_is_not_parsed(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(FileSyntaxError, match="1048577 bytes"):
        read_text(file)
