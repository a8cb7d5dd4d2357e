"""What a folder of images holds: links that lead back, what cannot be looked at, the order."""

import errno
import os
import random
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.data_timm import add, shards
from support.dense import make_pairs
from support.images import make_folder, picture, refused

from convnext_study.data import open_data
from convnext_study.data.dataset import DatasetPair

KINDS = ["folder:{}", "timm:{}", "timm:torch/image_folder?root={}"]


def listed(data: DatasetPair) -> list[tuple[str, int]]:
    """Names and labels of the training images."""
    files: Any = data.train
    return [(files.name(index), int(files.labels[index])) for index in range(len(files))]


def names_of(data: DatasetPair) -> list[str]:
    return [name for name, _ in listed(data)]


def fail_at(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Looking into that folder fails, as on a lost mount: root may read whatever it is."""
    honest = os.scandir

    def scandir(folder: Any = ".") -> Any:
        if Path(folder) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
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
    refused(f"folder:{root}", "train/all: is a link to a parent folder")


# What cannot be looked at


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["train", "train/cat", "train/cat/more"])
def test_an_unreadable_folder_is_named_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    root = make_folder(tmp_path)
    (root / "train" / "cat" / "more").mkdir()
    picture(1).save(root / "train" / "cat" / "more" / "0.jpg")
    fail_at(monkeypatch, root / place)
    refused(kind.format(root), rf"{place}: cannot be .*Input/output error")


def test_a_root_on_a_lost_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    root = make_folder(tmp_path / ".cache" / "__MACOSX")  # where it lies makes no difference
    before = open_data(kind.format(root))
    for part in ("train", "val"):
        litter(root / part)
    data = open_data(kind.format(root))
    assert data.classes == before.classes == ("cat", "dog")
    assert names_of(data) == names_of(before)
    assert data.val.digests() == before.val.digests()


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
    assert data.train.digests() == before.train.digests()
    assert data.val.digests() == before.val.digests()
    (note,) = data.notes
    assert note.startswith(f"{tmp_path / 'train' / 'images'}: 1 files")


# The order


def shuffled_scandir(seed: int) -> Callable[..., Any]:
    honest, dice = os.scandir, random.Random(seed)

    def scandir(folder: Any = ".") -> Any:
        with honest(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        dice.shuffle(entries)
        return nullcontext(entries)

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
    assert listed(data) == theirs.samples


def test_torchvisions_folders_are_listed_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root = make_folder(tmp_path, ("b", "a"), count=3)
    for name in ("0", "1-more", "z"):
        (root / "train" / "a" / name).mkdir()
        picture(3).save(root / "train" / "a" / name / "x.PNG")
    data = open_data(f"timm:torch/image_folder?root={root}")
    theirs = ImageFolder(str(root / "train"))
    assert (list(data.classes), listed(data)) == (theirs.classes, theirs.samples)


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
    assert all(Path(name).parent.name == data.classes[label] for name, label in listed(data))
