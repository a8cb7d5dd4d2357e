"""``timm:NAME``: folders, tars, shards and torchvision's sets, read by index."""

import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.data_timm import (
    HubReader,
    add,
    folder,
    one_tar,
    pack,
    shards,
    tar_a_class,
    tars_in_a_tar,
)
from support.images import make_folder, picture, readers_of, refused

from convnext_study.data import open_data
from convnext_study.data.dataset import DataError
from convnext_study.data.decode import to_tensor
from convnext_study.data.loader import train_batches
from convnext_study.data.sources.tar_shards import expand
from convnext_study.data.sources.timm_readers import kind_of
from convnext_study.recipes import MODERN

RECIPE = MODERN.replace(global_batch_size=4, image_size=32, rand_augment="")


Layout = Callable[[Path], str]


@pytest.mark.parametrize("layout", [folder, one_tar, tar_a_class, tars_in_a_tar, shards])
def test_every_layout_holds_the_same_images(tmp_path: Path, layout: Layout) -> None:
    data = open_data(layout(tmp_path))
    assert data.classes == (("0", "1") if layout is shards else ("cat", "dog"))
    assert (len(data.train), len(data.val), data.size) == (8, 8, 40)
    labels = [0, 1] * 4 if layout is shards else [0] * 4 + [1] * 4
    for part, first in ((data.train, 0), (data.val, 8)):
        for index, label in enumerate(labels):
            image, found = part.pixels(index)
            assert found == label
            error = image.int() - to_tensor(picture(first + index)).int()
            assert error.abs().float().mean() < 12  # JPEG is lossy


@pytest.mark.parametrize("layout", [tars_in_a_tar, shards])
def test_archives_are_exact_in_workers(tmp_path: Path, layout: Layout) -> None:
    data = open_data(layout(tmp_path))
    alone = list(train_batches(data, RECIPE, 0, 0))
    together = list(train_batches(data, RECIPE, 0, 0, 0, partial(readers_of, data, RECIPE, 2)))
    resumed = list(train_batches(data, RECIPE, 0, 0, 1))
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.images, b.images)
        assert a.erased == b.erased
    assert torch.equal(alone[1].images, resumed[0].images)


def test_tars_hold_what_timm_finds_in_them_in_an_order_of_names(tmp_path: Path) -> None:
    """timm's own order is that of the file system where members of two tars share a name."""
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    ours: Any = open_data(tar_a_class(tmp_path)).train
    theirs = ReaderImageInTar(str(tmp_path / "train"))
    expected = {(file.read(), int(label)) for file, label in (theirs[i] for i in range(8))}
    assert {(ours.read(index), ours.labels[index]) for index in range(8)} == expected
    names = [ours.name(index) for index in range(8)]
    assert names == sorted(set(names))


def test_labels_of_shards_from_json(tmp_path: Path) -> None:
    uri = shards(tmp_path, labels="json")
    options = "?label=y&train=set-train-{000..001}.tar|8&val=set-val-{000..001}.tar"
    assert open_data(uri + options).num_classes == 2
    refused(uri, r"set-train-000\.tar: not a shard of labelled images")


def test_a_bad_image_in_a_tar_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    (tmp_path / "images" / "train" / "dog" / "2.jpg").write_bytes(b"no image")
    for part in ("train", "val"):
        pack(tmp_path / "images" / part, tmp_path / f"{part}.tar")
    data = open_data(f"timm:{tmp_path}")
    with pytest.raises(DataError, match=r"train\.tar:dog/2\.jpg: cannot be decoded"):
        list(train_batches(data, RECIPE, 0, 0, 0, partial(readers_of, data, RECIPE, 1)))
    skipping = open_data(f"timm:{tmp_path}", corrupt_images="skip")
    list(train_batches(skipping, RECIPE, 0, 0, 0, partial(readers_of, skipping, RECIPE, 1)))
    assert skipping.corrupt.replaced == 1


def test_a_bad_image_of_torchvisions_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    (root / "train" / "cat" / "0.jpg").write_bytes(b"no image")
    data = open_data(f"timm:torch/image_folder?root={root}")
    with pytest.raises(DataError, match=r"train/cat/0\.jpg: cannot be decoded"):
        list(train_batches(data, RECIPE, 0, 0))


def test_sets_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.data.readers.create_reader", HubReader)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "datasets" or None)
    data = open_data("timm:hfds/o/N?val=test&label=fine")
    assert data.classes == ("sea", "tree")
    assert [data.val.pixels(index)[1] for index in range(len(data.val))] == [1, 0]
    assert torch.equal(data.val.pixels(1)[0], to_tensor(picture(3)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("timm:hfds/o/N", "pip install datasets")


def cut(tar: Path) -> None:
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content) // 2])


def cut_off(root: Path) -> str:
    uri = one_tar(root)
    cut(root / "train.tar")
    return uri


def cut_shard(root: Path) -> str:
    uri = shards(root)
    cut(root / "set-val-001.tar")
    return uri


def missing_shard(root: Path) -> str:
    uri = shards(root)
    (root / "set-train-001.tar").unlink()
    return uri + "?train=set-train-{000..001}.tar"


def no_tar(root: Path) -> str:
    uri = one_tar(root)
    (root / "val.tar").write_bytes(b"something else" * 100)
    return uri


def class_of(label: str) -> Layout:
    def make(root: Path) -> str:
        uri = shards(root)
        with tarfile.open(root / "set-train-000.tar", "a") as archive:
            add(archive, "b/1.jpg", b"an image")
            add(archive, "b/1.cls", label.encode())
        return uri

    return make


def sparse(root: Path) -> str:
    """A label of 8 GB in a small archive."""
    uri = shards(root)
    info = tarfile.TarInfo("b/1.cls")
    info.pax_headers = {"GNU.sparse.size": str(8 << 30), "GNU.sparse.map": "0,0"}
    with tarfile.open(root / "set-train-000.tar", "a") as archive:
        add(archive, "b/1.jpg", b"an image")
        archive.addfile(info)
    return uri


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (cut_off, "train.tar: has no end mark"),
        (cut_shard, "set-val-001.tar: has no end mark"),
        (missing_shard, r"no shards named set-train-001\.tar"),
        (no_tar, "val.tar: not a tar archive with images"),
        (lambda root: folder(root) + "?size=big", "size 'big' is not a number"),
        (lambda root: folder(root) + f"?size={'9' * 5000}", "is not a number of pixels up to 4096"),
        (class_of("99999999999"), "has label 99999999999; the largest allowed is 99999"),
        (class_of("-1"), "has label -1"),
        (class_of("9" * 5000), r"set-train-000\.tar: not a shard"),
        (sparse, r"b/1\.cls is not a regular file"),
        (lambda root: shards(root, missing=True), "has no .cls and no .json"),
    ],
)
def test_damaged_sources_are_one_line(tmp_path: Path, make: Layout, says: str) -> None:
    refused(make(tmp_path), says)


def test_an_archive_that_shrinks_stops_even_when_skipping(
    tmp_path: Path,
) -> None:
    data = open_data(one_tar(tmp_path), corrupt_images="skip")
    cut(tmp_path / "train.tar")
    with pytest.raises(DataError, match=r"train\.tar: is shorter than when it was opened"):
        list(train_batches(data, RECIPE, 0, 0))
    assert not data.corrupt.names


def test_names_sizes_and_patterns(tmp_path: Path) -> None:
    assert open_data(folder(tmp_path) + "?size=96").size == 96
    assert expand("a-{08..10}-{0..1}.tar|999") == [
        f"a-{number}-{part}.tar" for number in ("08", "09", "10") for part in (0, 1)
    ]
    assert expand("*.tar") == ["*.tar"]
    assert kind_of("HFDS/Owner/Name") == ("hfds", "Owner/Name")
    assert kind_of("relative/folder") == ("", "relative/folder")
