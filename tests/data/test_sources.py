"""Data by URI: what is opened, what it says of itself, what is refused and how."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import make_cifar, make_folder, picture, refused
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.data import open_data
from convnext_study.data.decode import to_tensor
from convnext_study.data.device import ToDevice
from convnext_study.data.loader import train_batches, val_batches
from convnext_study.data.sources import OF_IMAGES, SOURCES, DatasetSize, DataSource
from convnext_study.experiments.data_identity import dataset_size
from convnext_study.experiments.roadmap_runs import default_folder, default_recipe
from convnext_study.recipes import MODERN_SMALL
from convnext_study.roadmap import NANO, T


def test_every_source_is_named_in_help_and_on_the_page() -> None:
    """One line of the table is all that a further data set needs, beside its file."""
    shown = CliRunner().invoke(app, ["roadmap", "--help"], env={"COLUMNS": "200"}).output
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for scheme, source in SOURCES.items():
        assert source.usage in shown
        assert f"`{scheme}" in page


def test_a_further_source_is_opened_by_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "scans", DataSource("scans:PATH", "digits:open_digits"))
    assert open_data("scans:here").uri == "scans:here"
    refused("scans", "needs a path")


@pytest.mark.parametrize(
    ("uri", "folder", "recipe"),
    [
        ("clutter", "nano-clutter", "composed"),
        ("clutter:hard,tune", "nano-clutter-hard-tune", "composed"),
        ("folder:/a/b", "nano-folder-b", "small"),
        ("cifar10:/a/b", "nano-cifar10", "small"),
        ("fashion:/a/b", "nano-fashion", "small"),
        ("fashion?train=20", "nano-fashion-train-20", "small"),
    ],
)
def test_the_data_choose_folder_and_recipe(uri: str, folder: str, recipe: str) -> None:
    assert default_folder(NANO, uri) == Path("runs") / folder
    assert default_recipe(NANO, uri) == recipe
    assert default_recipe(T, uri) == "published"


@pytest.mark.parametrize("uri", ["digits", "clutter", "clutter:tune"])
def test_sizes_known_beforehand_are_true(uri: str) -> None:
    data = open_data(uri)
    opened = DatasetSize(len(data.train), len(data.val), data.num_classes, data.size, data.val_once)
    assert dataset_size(uri) == opened


def test_digits_are_real_split_for_good_and_normalised() -> None:
    digits = open_data("digits")
    assert (len(digits.train), len(digits.val)) == (1010, 787)
    assert digits.num_classes == 10
    held: Any = digits.val
    counts = held.labels.bincount()
    assert counts.tolist() == [78, 79, 77, 79, 79, 79, 79, 79, 79, 79]

    recipe = MODERN_SMALL.replace(crop="none", global_batch_size=1010)
    (batch,) = train_batches(digits, recipe, seed=0, epoch=0)
    images, labels = ToDevice(digits)(batch)
    assert images.shape == (1010, 3, 32, 32) and labels.dtype == torch.int64
    assert images.mean().abs() < 1e-4
    assert abs(images.std() - 1) < 1e-4


def test_a_folder_is_listed_by_class_and_name(tmp_path: Path) -> None:
    data = open_data(f"folder:{make_folder(tmp_path, ('zebra', 'ähre'), count=3)}")
    assert data.classes == ("zebra", "ähre")
    assert [data.train.pixels(index)[1] for index in range(6)] == [0, 0, 0, 1, 1, 1]
    error = data.train.pixels(4)[0].int() - to_tensor(picture(4)).int()
    assert error.abs().float().mean() < 12  # JPEG is lossy


@pytest.mark.parametrize(("side", "size"), [(20, 32), (64, 64), (300, 224)])
def test_a_folders_image_size_is_its_own_up_to_224(tmp_path: Path, side: int, size: int) -> None:
    root = make_folder(tmp_path, count=6)
    for file in root.rglob("*.jpg"):
        picture(1, side + 10, side).save(file)
    (root / "train" / "cat" / "0.jpg").write_bytes(b"")  # tells nothing, and is met later
    assert open_data(f"folder:{root}").size == size


def test_bad_folders_are_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    refused(f"folder:{tmp_path}", "train: contains no class folders")
    root = make_folder(tmp_path / "other")
    (root / "val" / "dog").rename(root / "val" / "wolf")
    refused(f"folder:{root}", "different classes.*dog, wolf")
    for file in (root / "train" / "dog").iterdir():
        file.unlink()
    refused(f"folder:{root}", "dog: contains no images")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("folder:/nowhere/at/all", "no such folder"),
        ("folder:", "needs a path"),
        ("digit", "did you mean digits"),
        ("cifar10:/nowhere/at/all", "--download"),
        ("synthetic:10,x", "needs positive whole numbers"),
        ("synthetic:0", "needs positive whole numbers"),
        ("synthetic:1,2,3,4", "needs positive whole numbers"),
        ("synthetic:00,2", "needs positive whole numbers"),
        ("synthetic:10,32,1000000000000", "too much memory"),
        ("synthetic:2000000000", "too much memory"),
        ("synthetic:10,100000", "too much memory"),
        (f"synthetic:10,32,{'9' * 5000}", "too much memory"),
        ("timm:wds/nowhere?train=a-{0..9999999999}.tar", "more than 100,000 shards"),
        ("timm:wds/nowhere?train={0..999}{0..999}.tar", "more than 100,000 shards"),
        (f"timm:wds/nowhere?train={{0..{'9' * 5000}}}.tar", "no shards named"),
        ("timm:", "needs a path"),
        ("timm:/nowhere/at/all", "contains no train, as a folder or tar"),
        ("timm:tfds/imagenet2012", "only streams images"),
        ("timm:hfids/cifar10", "only streams images"),
        ("timm:torch/nonsense", "train: cannot be opened"),
        ("timm:wds/nowhere", r"no shards named \*train\*\.tar"),
        ("timm:x?rot=y", "unknown option 'rot'; did you mean root"),
        ("cluter", "did you mean clutter"),
        ("clutter:hart", "'hart' is unknown; did you mean hard"),
        ("clutter:test", "use one of easy, medium, hard, tune"),
        (
            "clutter:easy,hard",
            "takes one difficulty, optionally with tune, as in clutter:hard,tune",
        ),
        ("clutter:tune,tune", "takes one difficulty, optionally"),
        ("clutter:hard,", "'' is unknown"),
        *((f"figures:{text}", "as in figures:128") for text in ("0", "64,0", "a", "9999")),
        *(
            (f"digit-canvas:{text}", "as in digit-canvas:64")
            for text in ("16", "64,-1", "9" * 5000)
        ),
        ("digit-canvas:256,tune", "'digit-canvas:256,tune': needs whole numbers, as in .*to 208"),
        ("digit-signs:64,1,2,3", "needs whole numbers, as in digit-signs:128"),
        ("coco:/x", "unknown kind"),
        ("cityscape:/x", "did you mean cityscapes"),
        ("pairs", "pairs:PATH"),
        ("pairs:/nowhere/at/all", "no such folder"),
        ("pairs:/", "needs train/images and train/masks"),
        ("cityscapes:/", "leftImg8bit and gtFine"),
    ],
)
def test_bad_uris(uri: str, says: str) -> None:
    refused(uri, says)


def test_data_with_other_labels() -> None:
    refused("cityscapes:/x", "a class for every pixel, but a class", labels=OF_IMAGES)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    count = make_cifar(tmp_path, monkeypatch, name)
    data = open_data(f"{name}:{tmp_path}")
    batches = 5 if name == "cifar10" else 1
    assert (len(data.train), len(data.val), data.size) == (count * batches, count, 32)
    assert data.classes == tuple(f"class{number}" for number in range(count))
    image, label = data.train.pixels(0)
    assert (image[:, 5, 3].tolist(), label) == ([255, 0, 0], 0)
    (batch,) = val_batches(data, MODERN_SMALL, 100)
    pixels, labels = ToDevice(data)(batch)
    assert labels[:3].tolist() == [0, 1, 2]
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    assert torch.allclose(pixels[0, 1], (0 - mean[1]) / std[1], atol=1e-5)

    for content in (b"", b"\x80\x04broken"):
        for file in tmp_path.glob("cifar-*/*"):
            file.write_bytes(content)
        refused(f"{name}:{tmp_path}", f"{name} is missing or damaged")


def test_synthetic_has_what_was_asked() -> None:
    data = open_data("synthetic:7,24,100")
    assert (data.num_classes, data.size, len(data.train), len(data.val)) == (7, 24, 100, 25)
    image, label = data.train.pixels(9)
    assert (image.shape, label) == ((3, 24, 24), 2)
    assert data.train.labels[9] == 2  # type: ignore[attr-defined]
    assert (open_data("synthetic").num_classes, open_data("synthetic:100").num_classes) == (10, 100)
    assert len(open_data("synthetic:100,16,50").val) == 100


def test_synthetic_is_a_function_of_the_index() -> None:
    first, again = open_data("synthetic:7,24,100"), open_data("synthetic:7,24,100")
    several = first.train.at(torch.tensor([5, 12, 19]))  # type: ignore[attr-defined]
    alone = again.train.at(torch.tensor([12]))  # type: ignore[attr-defined]
    assert torch.equal(several[1], alone[0])
    assert not torch.equal(several[0], several[1])  # the same class, another image
    assert torch.equal(first.train.pixels(12)[0], alone[0])
