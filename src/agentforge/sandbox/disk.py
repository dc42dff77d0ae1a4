"""How much a folder holds that hostile code writes to while we look.

No link is followed and nothing is opened but folders, each through the one above it: a folder that is swapped for a
link, or moved elsewhere meanwhile, leads nowhere else.
"""

import os
import stat
from collections.abc import Container, Generator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Measuring"]

_BLOCK = 512
"""What `st_blocks` counts, stat(2)."""
_ENTRY = 1024
"""What an entry counts at least: an empty file takes an inode and a name."""
_KEPT_OPEN = 32
"""Levels of folders that are held by a descriptor each; below that the way up is `..`."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAME_ONLY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Steps = Generator[bool, None, None]


@dataclass(slots=True)
class _Level:
    """A folder on the way down."""

    descriptor: int
    """-1 once it is closed."""
    inode: int
    below: list[str] = field(default_factory=list)
    """Folders in it that are still to be seen."""

    @classmethod
    def of(cls, descriptor: int) -> "_Level":
        return cls(descriptor, os.fstat(descriptor).st_ino)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Measuring:
    """One pass through a folder, in parts of a bounded cost: it may have any number of entries."""

    def __init__(self, folder: Path, left_out: Container[Path] = ()) -> None:
        """`left_out` are folders, it or right below it, that are not entered as long as they are in there."""
        self.size = 0
        """Bytes on the disk that were found so far; a file of many names counts once."""
        self.done = False
        """Whether the pass is over."""
        self.disturbed = False
        """Whether it was over too early: deep down, folders were moved while it went through them."""
        self.replaced = False
        """Whether something else stands in the folder's place: what was in it may be anywhere."""
        self._folder = folder
        self._left_out = left_out
        self._device = 0
        self._seen: set[tuple[int, int]] = set()
        self._steps = self._walk()

    def go_on(self, entries: int) -> bool:
        """Look at so many more entries; returns whether the pass is over."""
        for _ in range(entries):
            if next(self._steps, None) is None:
                self.done = True
                break
        return self.done

    def close(self) -> None:
        """Give the pass up."""
        self._steps.close()

    def _walk(self) -> Steps:
        """Yield after each entry."""
        top = None if self._folder in self._left_out else self._top()
        if top is None:
            return
        path = [_Level.of(top)]
        try:
            self._device = os.fstat(path[0].descriptor).st_dev
            yield from self._entries(path[0])
            while True:
                if path[-1].below:
                    yield from self._down(path)
                elif len(path) == 1 or not self._up(path):
                    return
        except OSError:
            self.disturbed = True
        finally:
            for level in path:
                level.close()

    def _top(self) -> int | None:
        """Open the folder itself; None if it is gone, or another thing is in its place."""
        try:
            above = os.open(self._folder.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = os.stat(self._folder.name, dir_fd=above, follow_symlinks=False)
                self.replaced = not stat.S_ISDIR(found.st_mode)
                return _open(above, self._folder.name)
            finally:
                os.close(above)
        except OSError as error:
            self.disturbed = not isinstance(error, FileNotFoundError)
            return None

    def _down(self, path: list[_Level]) -> Steps:
        here, name = path[-1], path[-1].below.pop()
        yield True
        if len(path) == 1 and self._folder / name in self._left_out:
            return
        descriptor = _opened(here.descriptor, name)
        if descriptor is None:
            return
        path.append(_Level.of(descriptor))
        if len(path) > _KEPT_OPEN:
            here.close()
        if os.fstat(descriptor).st_dev == self._device:  # else something is mounted there: it is not of this disk
            yield from self._entries(path[-1])

    def _up(self, path: list[_Level]) -> bool:
        """Go back to the folder above; False if it is not there any more."""
        left, above = path.pop(), path[-1]
        try:
            if above.descriptor < 0:
                above.descriptor = os.open("..", _FOLDER, dir_fd=left.descriptor)
                self.disturbed = os.fstat(above.descriptor).st_ino != above.inode
        finally:
            left.close()
        return not self.disturbed

    def _entries(self, level: _Level) -> Steps:
        """Count what is in a folder, and note the folders in it."""
        with os.scandir(level.descriptor) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # it is gone
                if self._is_new(found):
                    self.size += max(found.st_blocks * _BLOCK, _ENTRY)
                    if stat.S_ISDIR(found.st_mode):
                        level.below.append(entry.name)
                yield True

    def _is_new(self, found: os.stat_result) -> bool:
        """Whether it was not counted under another name before."""
        if found.st_nlink < 2 or stat.S_ISDIR(found.st_mode):
            return True
        if (found.st_dev, found.st_ino) in self._seen:
            return False
        self._seen.add((found.st_dev, found.st_ino))
        return True


def _opened(above: int, name: str) -> int | None:
    """Open a folder; None if it is gone, or no folder any more."""
    try:
        return _open(above, name)
    except OSError:
        return None


def _open(above: int, name: str) -> int:
    """Open a folder, one that is closed to its own user too: it would be a place to hide in. Raises OSError."""
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except PermissionError:
        return _open_to_us(above, name)


def _open_to_us(above: int, name: str) -> int:
    """Let us into a folder that its owner, who is the same user, has closed."""
    found = os.open(name, _NAME_ONLY, dir_fd=above)
    try:
        path = f"/proc/self/fd/{found}"
        Path(path).chmod(os.fstat(found).st_mode | stat.S_IRUSR | stat.S_IXUSR)
        return os.open(path, _FOLDER & ~os.O_NOFOLLOW)
    finally:
        os.close(found)
