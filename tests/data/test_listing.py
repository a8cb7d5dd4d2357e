"""What a folder of images holds: links that lead back, what cannot be looked at, the order."""

import errno
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.data_timm import add, shards
from support.dense import make_pairs
from support.images import make_folder, picture, refused

from convnext_study.data import open_data
from convnext_study.data.dataset import DataError, DatasetPair

KINDS = ["folder:{}", "timm:{}", "timm:torch/image_folder?root={}"]


def names_of(data: DatasetPair) -> list[str]:
    files: Any = data.train
    return [files.name(index) for index in range(len(files))]


def fail_at(
    monkeypatch: pytest.MonkeyPatch, path: Path, code: int = errno.EIO, times: int = 10**6
) -> None:
    """Looking into that folder fails, as on a lost mount: root may read whatever it is."""
    honest, left = os.scandir, [times]

    def scandir(folder: Any = ".") -> Any:
        if Path(folder) == path and left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code), str(folder))
        return honest(folder)

    monkeypatch.setattr(os, "scandir", scandir)


# Links


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../../val"])
def test_a_link_to_a_folder_above_adds_no_image(tmp_path: Path, kind: str, target: str) -> None:
    root = make_folder(tmp_path / "set", count=3)
    before = names_of(open_data(kind.format(root)))
    for name in ("back", "again"):  # each way through them is another path
        (root / "train" / "cat" / name).symlink_to(target)
    names = names_of(open_data(kind.format(root)))
    other = [name for name in names if "/back/" in name or "/again/" in name]
    if target == "../../val":  # not above: a link to folders elsewhere is followed
        assert len(other) == 12
    else:
        assert names == before


def test_links_elsewhere_are_followed_each_time(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    (tmp_path / "more" / "inner").mkdir(parents=True)
    picture(1).save(tmp_path / "more" / "inner" / "a.jpg")
    (tmp_path / "more" / "inner" / "up").symlink_to(tmp_path / "more")
    for name in ("cat/one", "cat/two", "dog/one"):
        (root / "train" / name).symlink_to(tmp_path / "more")
    (root / "train" / "wolf").symlink_to(tmp_path / "more")
    (root / "val" / "wolf").symlink_to(tmp_path / "more")
    data = open_data(f"folder:{root}")
    assert data.classes == ("cat", "dog", "wolf")
    linked = [name for name in names_of(data) if name.endswith("inner/a.jpg")]
    assert len(linked) == 4
    assert len(data.train) == 8 + 4


def test_a_class_that_holds_itself_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    for part in ("train", "val"):
        (root / part / "all").symlink_to("..")
    refused(f"folder:{root}", "train/all: a link to a folder above it")


# What cannot be looked at


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOTCONN])
def test_an_unreadable_folder_is_named_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
) -> None:
    root = make_folder(tmp_path)
    inner = root / "train" / "cat" / "more"
    inner.mkdir()
    picture(1).save(inner / "0.jpg")
    fail_at(monkeypatch, inner, code)
    with pytest.raises(DataError, match="train/cat/more: cannot be read") as caught:
        open_data(kind.format(root))
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["train", "train/cat"])
def test_unreadable_parts_and_classes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    root = make_folder(tmp_path)
    fail_at(monkeypatch, root / place)
    refused(f"folder:{root}", f"{place}: cannot be read \\(Input/output error\\)$")


def test_a_root_on_a_lost_mount_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path)
    honest = Path.stat

    def stat(path: Path, **how: Any) -> Any:
        if path == root:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(path))
        return honest(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    refused(f"folder:{root}", r"cannot be read \(Transport endpoint is not connected\)$")


@pytest.mark.parametrize("name", ["dog/3.jpg", "dog/more", "wolf"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path, count=3)
    (root / "train" / name).symlink_to(tmp_path / "not mounted")
    refused(f"folder:{root}", f"train/{name}: cannot be read .No such file")


# What is no data


def litter(part: Path) -> None:
    """What systems and tools leave in a folder of class folders, all with images in it."""
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found", "#recycle", ".Trash-0"):
        for folder in (part / name, part / "dog" / name):
            folder.mkdir()
            picture(1).save(folder / "0.jpg")
    for name in ("._0.jpg", ".0.jpg"):
        for folder in (part, part / "dog"):
            (folder / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    (part / "dog" / ".#notes.jpg").symlink_to("me@here.1234")  # an editor's


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_and_system_files_are_no_data_and_no_classes(tmp_path: Path, kind: str) -> None:
    root = make_folder(tmp_path)
    before = open_data(kind.format(root))
    for part in ("train", "val"):
        litter(root / part)
    data = open_data(kind.format(root))
    assert data.classes == before.classes == ("cat", "dog")
    assert names_of(data) == names_of(before)
    assert data.val.digests() == before.val.digests()


def test_a_data_set_in_a_hidden_folder_is_one(tmp_path: Path) -> None:
    root = make_folder(tmp_path / ".cache" / "__MACOSX")
    for kind in KINDS:
        assert len(open_data(kind.format(root)).train) == 8


def test_tars_with_system_files(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images")
    for part in ("train", "val"):
        litter(root / part)
        with tarfile.open(tmp_path / f"{part}.tar", "w") as archive:
            archive.add(root / part, ".")
        (tmp_path / f"._{part}.tar").write_bytes(b"Mac OS X")
    data = open_data(f"timm:{tmp_path}")
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 8, 8)


def test_shards_with_system_files(tmp_path: Path) -> None:
    uri = shards(tmp_path)
    before = open_data(uri)
    for path in sorted(tmp_path.glob("*.tar")):
        (tmp_path / f"._{path.name}").write_bytes(b"Mac OS X")
        with tarfile.open(path, "a") as archive:
            for name in ("a/._00000.jpg", ".ipynb_checkpoints/00000.jpg", "__MACOSX/a/1.jpg"):
                add(archive, name, b"no image")
    data = open_data(uri)
    assert names_of(data) == names_of(before)
    assert len(data.val) == len(before.val)


def test_pairs_with_system_files(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    before = open_data(f"pairs:{tmp_path}")
    for kind in ("images", "masks"):
        for part in ("train", "val"):
            folder = tmp_path / part / kind
            (folder / "._0.png").write_bytes(b"Mac OS X")
            (folder / ".ipynb_checkpoints").mkdir()
            picture(1).save(folder / ".ipynb_checkpoints" / "0-checkpoint.png")
    (tmp_path / "train" / "images" / "0.gif").touch()
    data = open_data(f"pairs:{tmp_path}")
    assert (data.train.digests(), data.val.digests()) == (
        before.train.digests(),
        before.val.digests(),
    )
    assert [note.partition(" files")[0] for note in data.notes] == [
        f"{tmp_path / 'train' / 'images'}: 1"
    ]


# The order


class Entries(ExitStack):
    """What os.scandir gives, in another order."""

    def __init__(self, entries: list[os.DirEntry[str]]) -> None:
        super().__init__()
        self.entries = iter(entries)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def __next__(self) -> os.DirEntry[str]:
        return next(self.entries)


def shuffled_scandir(seed: int) -> Callable[..., Entries]:
    honest, dice = os.scandir, random.Random(seed)

    def scandir(folder: Any = ".") -> Entries:
        with honest(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        dice.shuffle(entries)
        return Entries(entries)

    return scandir


VARIANTS = ["abc", "abC", "aBc", "aBC", "Abc", "AbC", "ABc", "ABC"]


def many_names(root: Path) -> Path:
    """Classes and files whose names timm takes for the same, and folders in folders."""
    for part in ("train", "val"):
        for name in VARIANTS:
            inner = root / part / "deeper" / name
            inner.mkdir(parents=True)
            for file in ("1.jpg", "01.jpg", "x.JPG", "X.jpg", "10.jpg", "9.jpg"):
                picture(1, 8, 8).save(inner / file)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_a_directory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root = many_names(tmp_path)
    seen = []
    for seed in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", shuffled_scandir(seed))
            data = open_data(kind.format(root))
        seen.append((data.classes, names_of(data), data.train.digests()))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_not_read_are_counted(tmp_path: Path, kind: str) -> None:
    root = make_folder(tmp_path)
    assert open_data(kind.format(root)).notes == ()
    for name in ("a.gif", "B.GIF", "c.heic", "README"):
        (root / "val" / "cat" / name).write_bytes(b"")
    (note,) = open_data(kind.format(root)).notes
    assert note.startswith(f"{root / 'val'}: 4 files are not read (1 without a suffix, 2 .gif, 1 .")


def test_timms_folders_are_listed_as_timm_does(tmp_path: Path) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    root = make_folder(tmp_path, ("n10", "n9", "zebra"), count=12)
    (root / "train" / "n9" / "deep" / "fox").mkdir(parents=True)
    picture(3).save(root / "train" / "n9" / "deep" / "fox" / "a.png")
    (root / "val" / "fox").mkdir()
    picture(3).save(root / "val" / "fox" / "b.jpeg")
    data = open_data(f"timm:{root}")
    theirs = ReaderImageFolder(str(root / "train"))
    assert data.classes == tuple(theirs.class_to_idx)
    source: Any = data.train
    ours = [(source.name(index), source.labels[index]) for index in range(len(source))]
    assert ours == theirs.samples


def test_torchvisions_folders_are_listed_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root = make_folder(tmp_path, ("b", "a"), count=3)
    for name in ("0", "1-more", "z"):
        (root / "train" / "a" / name).mkdir()
        picture(3).save(root / "train" / "a" / name / "x.PNG")
    data = open_data(f"timm:torch/image_folder?root={root}")
    theirs = ImageFolder(str(root / "train"))
    source: Any = data.train
    ours = [(source.name(index), source.labels[index]) for index in range(len(source))]
    assert (list(data.classes), ours) == (theirs.classes, theirs.samples)


def test_classes_of_tars_that_differ_in_case_have_fixed_numbers(tmp_path: Path) -> None:
    """timm sorts them out of a set, in an order that changes from process to process."""
    root = many_names(tmp_path)
    for part in ("train", "val"):
        with tarfile.open(root / f"{part}.tar", "w") as archive:
            archive.add(root / part / "deeper", ".")
    for part in ("train", "val"):
        (root / part).rename(root / f"unpacked {part}")
    data = open_data(f"timm:{root}")
    assert data.classes == tuple(sorted(VARIANTS))
    source: Any = data.train
    for index in range(len(source)):
        assert Path(source.name(index)).parent.name == data.classes[source.labels[index]]
