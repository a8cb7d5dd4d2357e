"""What a folder of images holds, looked at once: every file with its size.

Links are followed, and no folder is entered from inside itself. What cannot be looked at ends the
listing: a data set without the folders of a lost mount would be a smaller one that trains as well.
What systems and tools leave beside images is no data, and is not looked at.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from convnext_study.data.dataset import DataError, unreadable

Place = tuple[int, int]  # device and inode: a folder, whatever links lead to it

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MOST_NAMED = 8  # suffixes
MOST_CLASSES = 100_000  # a classifier of more would not fit anywhere, and a label of more is a slip

# What macOS, Synology, QNAP, ext4 and Windows leave in folders, beside names that begin with a dot.
SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}
    | {"lost+found", "system volume information", "$recycle.bin", "thumbs.db", "desktop.ini"}
)


def numbered_classes(where: str, labels: Collection[int]) -> tuple[str, ...]:
    """Names of classes that only have numbers, from 0 to the largest.

    Raises DataError for a label below 0, as of images that have none, and for more than
    `MOST_CLASSES`.
    """
    if min(labels) < 0:
        raise DataError(f"{where}: holds label {min(labels)}; classes are numbered from 0")
    if max(labels) >= MOST_CLASSES:
        raise DataError(f"{where}: holds label {max(labels)}; the largest is {MOST_CLASSES - 1}")
    return tuple(map(str, range(1 + max(labels))))


def is_data(path: str) -> bool:
    """Whether no part of a path inside a data set is hidden, or named as systems name their own."""
    return all(_is_own_name(part) for part in path.split("/") if part not in ("", ".", ".."))


def _is_own_name(name: str) -> bool:
    return name[0] != "." and name.lower() not in SYSTEM_NAMES


@contextmanager
def _looking() -> Iterator[None]:
    """Raises DataError that names what cannot be looked at."""
    try:
        yield
    except OSError as error:
        raise unreadable(str(error.filename), error) from None


@_looking()
def size_of(path: str) -> int:
    """A file's size in bytes. Raises DataError where it cannot be had."""
    return os.stat(path).st_size  # noqa: PTH116


@_looking()
def is_folder(path: Path) -> bool:
    """Whether there is such a folder. Raises DataError where that cannot be known."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@_looking()
def subfolders(folder: str) -> list[str]:
    """Names of the folders in a folder, in their order. Raises DataError at what is unreadable."""
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


@_looking()
def files_in(
    folder: str, suffixes: Collection[str] | None = None, unread: Counter[str] | None = None
) -> list[tuple[str, int]]:
    """Path and size in bytes of every file under a folder, in no order.

    Args:
        folder: where to look.
        suffixes: of the files to list, as ``.jpg``; all files where not given.
        unread: counts the other files by their suffixes.

    Raises DataError naming what cannot be read, and a folder that is a link to one above it.
    """
    above, place = _above(folder), _place(folder)
    if place in above:
        raise DataError(f"{folder}: a link to a folder above it, which holds itself; remove it")
    found: list[tuple[str, int]] = []
    waiting = [(folder, above | {place})]
    while waiting:
        inside, above = waiting.pop()
        for entry in _entries(inside):
            if _is_folder(entry):
                if (place := _place(entry.path)) not in above:
                    waiting.append((entry.path, above | {place}))
            elif suffixes is None or _suffix(entry.name) in suffixes:
                found.append((entry.path, entry.stat().st_size))
            elif unread is not None:
                unread[_suffix(entry.name)] += 1
    return found


def unread_note(folder: str, unread: Counter[str], suffixes: Collection[str]) -> tuple[str, ...]:
    """One line that says which files in a folder are not read, and none where all are."""
    if not unread:
        return ()
    kinds = [f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(unread.items())]
    more = " ..." if len(kinds) > MOST_NAMED else ""
    return (
        f"{folder}: {unread.total()} files are not read ({', '.join(kinds[:MOST_NAMED])}{more}); "
        f"images are {', '.join(sorted(suffixes))}",
    )


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if _is_own_name(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises OSError at a link that leads nowhere: what it led to may be a lost mount."""
    found = entry.is_dir()
    if not found and entry.is_symlink():
        entry.stat()
    return found


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a million of them


def _place(folder: str) -> Place:
    found = os.stat(folder)  # noqa: PTH116
    return found.st_dev, found.st_ino


def _above(folder: str) -> frozenset[Place]:
    """All folders that a folder is in, by its path and by where links on that path lead."""
    paths = Path(os.path.abspath(folder)), Path(os.path.realpath(folder))  # noqa: PTH100
    return frozenset(_place(str(parent)) for path in paths for parent in path.parents)
