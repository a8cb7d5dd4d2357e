"""List a folder of images once: every file with its size.

Links are followed, but no folder is entered from inside itself. Anything unreadable stops the
listing: a data set without the folders of a lost mount would be a smaller one that still trains.
Files that operating systems and tools leave beside images are not data and are ignored.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from convnext_study.data.dataset import DataError, unreadable

FolderId = tuple[int, int]  # device and inode: the same for all links to a folder

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MOST_NAMED = 8  # suffixes
MOST_CLASSES = 100_000  # a larger classifier would not fit in memory; a larger label is a mistake

# What macOS, Synology, QNAP, ext4 and Windows leave in folders, beside names that begin with a dot.
SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}
    | {"lost+found", "system volume information", "$recycle.bin", "thumbs.db", "desktop.ini"}
)


def numbered_classes(where: str, labels: Collection[int]) -> tuple[str, ...]:
    """Names of classes that have only numbers, from 0 to the largest.

    Raises DataError for a label below 0, such as that of unlabelled images, and for more than
    `MOST_CLASSES`.
    """
    if min(labels) < 0:
        raise DataError(f"{where}: has label {min(labels)}; classes are numbered from 0")
    if max(labels) >= MOST_CLASSES:
        raise DataError(
            f"{where}: has label {max(labels)}; the largest allowed is {MOST_CLASSES - 1}"
        )
    return tuple(map(str, range(1 + max(labels))))


def is_data(path: str) -> bool:
    """Whether no part of a path inside a data set is hidden or has a name that systems use."""
    return all(_is_own_name(part) for part in path.split("/") if part not in ("", ".", ".."))


def _is_own_name(name: str) -> bool:
    return name[0] != "." and name.lower() not in SYSTEM_NAMES


@contextmanager
def _reading() -> Iterator[None]:
    """Raises DataError that names the unreadable path."""
    try:
        yield
    except OSError as error:
        raise unreadable(str(error.filename), error) from None


@_reading()
def size_of(path: str) -> int:
    """A file's size in bytes. Raises DataError if it cannot be read."""
    return os.stat(path).st_size  # noqa: PTH116


@_reading()
def is_folder(path: Path) -> bool:
    """Whether there is such a folder. Raises DataError if that cannot be determined."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@_reading()
def subfolders(folder: str) -> list[str]:
    """Sorted names of the folders in a folder. Raises DataError if one is unreadable."""
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


@_reading()
def files_in(
    folder: str, suffixes: Collection[str] | None = None, unread: Counter[str] | None = None
) -> list[tuple[str, int]]:
    """Path and size in bytes of every file under a folder, unordered.

    Args:
        folder: to list, with all folders in it.
        suffixes: of the files to list, like ``.jpg``; by default all files.
        unread: counts the other files by suffix.

    Raises DataError naming what cannot be read, or a folder that is a link to one above it.
    """
    above, folder_id = _ancestors(folder), _folder_id(folder)
    if folder_id in above:
        raise DataError(f"{folder}: is a link to a parent folder, a cycle; remove it")
    files: list[tuple[str, int]] = []
    pending = [(folder, above | {folder_id})]
    while pending:
        current, above = pending.pop()
        for entry in _entries(current):
            if _is_folder(entry):
                if (folder_id := _folder_id(entry.path)) not in above:
                    pending.append((entry.path, above | {folder_id}))
            elif suffixes is None or _suffix(entry.name) in suffixes:
                files.append((entry.path, entry.stat().st_size))
            elif unread is not None:
                unread[_suffix(entry.name)] += 1
    return files


def unread_note(folder: str, unread: Counter[str], suffixes: Collection[str]) -> tuple[str, ...]:
    """One line that says which files in a folder are not read, or none if all are."""
    if not unread:
        return ()
    kinds = [f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(unread.items())]
    etc = " ..." if len(kinds) > MOST_NAMED else ""
    return (
        f"{folder}: {unread.total()} files are not read ({', '.join(kinds[:MOST_NAMED])}{etc}); "
        f"images are {', '.join(sorted(suffixes))}",
    )


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if _is_own_name(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises OSError for a broken link: its target may be a lost mount."""
    is_dir = entry.is_dir()
    if not is_dir and entry.is_symlink():
        entry.stat()
    return is_dir


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a million of them


def _folder_id(folder: str) -> FolderId:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _ancestors(folder: str) -> frozenset[FolderId]:
    """All folders that contain a folder, by its path and by the targets of links on it."""
    paths = Path(os.path.abspath(folder)), Path(os.path.realpath(folder))  # noqa: PTH100
    return frozenset(_folder_id(str(parent)) for path in paths for parent in path.parents)
