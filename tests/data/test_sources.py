"""Data by URI: what is opened, what it says of itself, what is refused and how."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import make_cifar, make_folder, picture, refused
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.data import open_data
from convnext_study.data.dataset import DatasetPair
from convnext_study.data.decode import to_tensor
from convnext_study.data.device import ToDevice
from convnext_study.data.loader import train_batches, val_batches
from convnext_study.data.sources import OF_IMAGES, SOURCES, DatasetSize, DataSource
from convnext_study.recipes import MODERN_SMALL


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


def test_sizes_known_beforehand_are_true(digits: DatasetPair) -> None:
    opened = DatasetSize(len(digits.train), len(digits.val), digits.num_classes, digits.size)
    assert SOURCES["digits"].size == opened


def test_nothing_heavy_is_imported_before_data_is_opened() -> None:
    code = "import sys, convnext_study.data; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def digits() -> DatasetPair:
    return open_data("digits")


def test_digits_are_real_and_split_for_good(digits: DatasetPair) -> None:
    assert (len(digits.train), len(digits.val)) == (1010, 787)
    assert digits.num_classes == 10
    held: Any = digits.val
    counts = held.labels.bincount()
    assert counts.tolist() == [78, 79, 77, 79, 79, 79, 79, 79, 79, 79]
    image, _ = digits.train.pixels(0)
    assert image.shape == (3, 32, 32)


def test_batches_are_normalised(digits: DatasetPair) -> None:
    recipe = MODERN_SMALL.replace(crop="none", global_batch_size=1010)
    (batch,) = train_batches(digits, recipe, seed=0, epoch=0)
    images, labels = ToDevice(digits)(batch)
    assert images.shape == (1010, 3, 32, 32)
    assert labels.dtype == torch.int64
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


def _drop_class(root: Path) -> None:
    (root / "val" / "dog").rename(root / "val" / "wolf")


def _empty_class(root: Path) -> None:
    for file in (root / "train" / "dog").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_drop_class, "different classes.*dog, wolf"), (_empty_class, "dog: holds no images")],
)
def test_bad_folders_are_named(tmp_path: Path, damage: Any, says: str) -> None:
    root = make_folder(tmp_path)
    damage(root)
    refused(f"folder:{root}", says)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    refused(f"folder:{tmp_path}", "train: holds no class folders")


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
        (f"timm:wds/nowhere?train={{0..{'9' * 5000}}}.tar", "no shards called"),
        ("timm:", "needs a path"),
        ("timm:/nowhere/at/all", "holds no train, folder or tar"),
        ("timm:tfds/imagenet2012", "only streams images"),
        ("timm:hfids/cifar10", "only streams images"),
        ("timm:torch/nonsense", "train: cannot be opened"),
        ("timm:wds/nowhere", r"no shards called \*train\*\.tar"),
        ("timm:x?rot=y", "unknown option 'rot'; did you mean root"),
        ("cluter", "did you mean clutter"),
        ("clutter:hart", "'hart' is unknown; did you mean hard"),
        ("clutter:test", "use one of easy, medium, hard, tune"),
        ("clutter:easy,hard", "takes one difficulty, and tune, as in clutter:hard,tune"),
        ("clutter:tune,tune", "takes one difficulty, and tune"),
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
    ],
)
def test_bad_uris(uri: str, says: str) -> None:
    refused(uri, says)


def test_data_with_other_labels() -> None:
    refused(
        "cityscapes:/x", "a class for every pixel, and a class for every image", labels=OF_IMAGES
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_as_torchvision_stores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
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


@pytest.mark.parametrize("content", [b"", b"\x80\x04broken"])
def test_damaged_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    make_cifar(tmp_path, monkeypatch, "cifar100")
    (tmp_path / "cifar-100-python" / "train").write_bytes(content)
    refused(f"cifar100:{tmp_path}", "cifar100 is not there or damaged")


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
