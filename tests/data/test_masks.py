"""Data with a label for every pixel: what each kind holds, which masks are refused, the cure."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import ExifTags, Image
from support.dense import dense_readers, make_cityscapes, make_pairs, mask
from support.images import picture, png, refused

from convnext_study.data import check_same, fingerprint, open_data
from convnext_study.data.dataset import IGNORE, CorruptImage, DataError, DatasetPair
from convnext_study.data.loader import epoch_order, train_batches, val_batches
from convnext_study.data.transforms.joint import Crop
from convnext_study.recipes import MODERN_SMALL


def labelled(data: DatasetPair, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A training image and its labels."""
    image, labels = data.train.pixels(index)
    assert isinstance(labels, torch.Tensor)
    return image, labels


def test_canvases_are_a_pure_function_of_their_index() -> None:
    data, again = (open_data("digit-canvas:32,40,20") for _ in range(2))
    assert (len(data.train), len(data.val), data.num_classes, data.shape) == (40, 20, 11, (32, 32))
    for index in (7, 3, 7):
        one, other = labelled(data, index), labelled(again, index)
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    images, labels = zip(*(data.train.pixels(index) for index in range(40)), strict=True)
    assert len({image.numpy().tobytes() for image in images}) == 40
    assert torch.stack(labels).unique().tolist() == list(range(11))
    assert not torch.equal(data.val.pixels(7)[0], images[7])
    assert fingerprint(data) == fingerprint(again)


def test_the_label_of_a_canvas_is_where_the_digits_ink_is() -> None:
    data = open_data("digit-canvas:64,30,1")
    ink, ground = [], []
    for index in range(30):
        image, labels = labelled(data, index)
        grey = image.float().mean(0)
        assert 0.005 < (labels > 0).float().mean() < 0.5
        ink.append(grey[labels > 0].mean())
        ground.append(grey[labels == 0].mean())
    # Ink is at least 0.4 of 0.7; ground mostly a photograph at 0.4 of its brightness.
    assert min(ink) > 255 * 0.4 * 0.7 > np.mean(ground)


def parts_of(uri: str) -> list[tuple[set[bytes], set[bytes]]]:
    """Of both parts of canvases: their scans, and the blocks of photographs that JPEG packs."""
    data, found = open_data(uri), []
    parts: list[Any] = [data.train, data.val]
    for part in parts:
        scans = {scan.numpy().tobytes() for scan in part.scans}
        blocks = [one.unfold(1, 16, 16).unfold(2, 16, 16) for one in part.photos]
        places = torch.cat([one.permute(1, 2, 0, 3, 4).flatten(0, 1) for one in blocks])
        found.append((scans, {block.numpy().tobytes() for block in places}))
    return found


@pytest.mark.parametrize("kind", ["digit-canvas", "digit-signs"])
def test_what_is_evaluated_on_is_in_no_other_part(kind: str) -> None:
    (train, test), (other, tune) = parts_of(f"{kind}:32,4,4"), parts_of(f"{kind}:32,4,4,tune")
    assert [len(scans) for scans, _ in (train, test, other, tune)] == [1010, 787, 752, 258]
    for one, held_out in ((train, test), (other, tune), (tune, test), (other, test)):
        assert not any(mine & its for mine, its in zip(one, held_out, strict=True))
    assert other[0] | tune[0] == train[0]


def test_a_plate_has_the_class_of_its_digit() -> None:
    data, seen = open_data("digit-signs:64,8,1"), 0
    for index in range(8):
        image, labels = labelled(data, index)
        for digit in set(labels.unique().tolist()) - {0}:
            rows, cols = (labels == digit).nonzero().unbind(1)
            (top, left), (high, wide) = (rows.min(), cols.min()), (rows.max(), cols.max())
            seen += 1
            assert high - top + 1 >= 24 and wide - left + 1 >= 24  # a region, not strokes
            plate = image[:, rows, cols].float().mean(0)
            assert plate.max() - plate.median() > 255 / 8  # with a digit in it
    assert seen > 8 and data.val_once and not open_data("digit-signs:64,8,1,tune").val_once


@pytest.mark.parametrize("kind_first", [False, True])
def test_pairs_in_either_order_of_folders(tmp_path: Path, kind_first: bool) -> None:
    data = open_data(f"pairs:{make_pairs(tmp_path, 4, kind_first=kind_first)}")
    assert (len(data.train), len(data.val), data.shape) == (4, 4, (40, 50))
    assert data.classes == ("class0", "class1", "class2")  # counted, without the ignored one
    image, labels = labelled(data, 2)
    assert image.shape == (3, 40, 50) and labels.shape == (40, 50)
    assert set(labels.unique().tolist()) == {0, 1, 2, IGNORE}
    (tmp_path / "classes.txt").write_text("sky\nsea\nland\n")
    assert open_data(f"pairs:{tmp_path}").classes == ("sky", "sea", "land")


def test_palette_masks_hold_their_indices(tmp_path: Path) -> None:
    path = make_pairs(tmp_path) / "train" / "masks" / "0.png"
    _, plain = labelled(open_data(f"pairs:{tmp_path}"), 0)
    with Image.open(path) as grey:
        coloured = grey.copy()
    coloured.putpalette([255 - value for value in range(256) for _ in range(3)])
    coloured.save(path)
    assert torch.equal(labelled(open_data(f"pairs:{tmp_path}"), 0)[1], plain)


def test_cityscapes_labels_become_the_19_classes(tmp_path: Path) -> None:
    data = open_data(f"cityscapes:{make_cityscapes(tmp_path)}")
    assert (len(data.train), len(data.val), data.num_classes) == (2, 2, 19)
    assert data.classes[:3] + data.classes[-1:] == ("road", "sidewalk", "building", "bicycle")
    _, labels = data.val.pixels(0)
    assert isinstance(labels, torch.Tensor)
    # Of the ids 0 to 33, those that the authors train (cityscapesScripts, helpers/labels.py).
    trained = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = [trained.index(one) if one in trained else IGNORE for one in range(34)]
    assert labels[0, :34].tolist() == expected


def _labels(values: Any) -> Callable[[Path], None]:
    """Writes a mask of these values."""
    return lambda path: Image.fromarray(values).save(path)


SMALL = np.zeros((4, 5), np.uint8)
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing, but train/images/1.jpg"),
    "size": (_labels(SMALL), "is 5x4 pixels, but its image is 50x40"),
    "range": (_labels(np.full((40, 50), 9, np.uint8)), "has label 9, but there are 3 classes"),
    "colours": (lambda path: picture(0).save(path), "one class number per pixel"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:40]), "cannot be decoded"),
    "16 bits": (_labels(np.full((40, 50), 300, np.uint16)), "has label 300"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_pair_is_one_line_or_skipped_and_counted(tmp_path: Path, kind: str) -> None:
    spoil, says = BAD[kind]
    (make_pairs(tmp_path) / "classes.txt").write_text("a\nb\nc\n")
    path = tmp_path / "train" / "masks" / "1.png"
    spoil(path)
    with pytest.raises(CorruptImage, match=says) as caught:
        open_data(f"pairs:{tmp_path}").train.pixels(1)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    data = open_data(f"pairs:{tmp_path}", corrupt_images="skip")
    recipe = MODERN_SMALL.replace(global_batch_size=6)
    reading = partial(dense_readers, data, Crop(40, 50, flip=False))
    (batch,) = train_batches(data, recipe, 0, 0, 0, reading)
    assert (data.corrupt.replaced, data.corrupt.names) == (1, {str(path)})
    place = epoch_order(6, 0, 0).tolist().index(1)
    assert torch.equal(batch.images[place], data.train.pixels(2)[0])
    assert torch.equal(batch.labels[place], labelled(data, 2)[1])


def test_a_bad_pair_of_validation_is_left_out(tmp_path: Path) -> None:
    _labels(SMALL)(make_pairs(tmp_path) / "val" / "masks" / "0.png")
    data = open_data(f"pairs:{tmp_path}", corrupt_images="skip")
    reading = partial(dense_readers, data, Crop(8, 8))
    batches = list(val_batches(data, MODERN_SMALL, 1, reading))
    assert [batch.images.shape for batch in batches] == [(1, 3, 64, 64)] * 5
    assert [int(batch.positions[0]) for batch in batches] == [1, 2, 3, 4, 5]
    assert data.corrupt.replaced == 1


def test_masks_that_are_all_missing_are_never_skipped(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    for path in (tmp_path / "val" / "masks").glob("*.png"):
        path.unlink()
    refused(f"pairs:{tmp_path}", r"val/masks/0\.png: is missing", corrupt_images="skip")


def test_a_missing_cityscapes_mask_is_named(tmp_path: Path) -> None:
    path, *_ = (make_cityscapes(tmp_path) / "gtFine" / "train").rglob("*_labelIds.png")
    path.unlink()
    refused(f"cityscapes:{tmp_path}", str(path))


def test_the_fingerprint_tells_changed_masks(tmp_path: Path) -> None:
    before = fingerprint(open_data(f"pairs:{make_pairs(tmp_path / 'one')}"))
    same = fingerprint(open_data(f"pairs:{make_pairs(tmp_path / 'two')}"))
    check_same(before, same, "here")
    mask(0).save(tmp_path / "two" / "train" / "masks" / "0.png", compress_level=0)
    with pytest.raises(DataError, match="here: train has 6 images as recorded, but of other"):
        check_same(before, fingerprint(open_data(f"pairs:{tmp_path / 'two'}")), "here")


Mask = npt.NDArray[np.uint8]
Save = Callable[[Mask, Path], None]
PARTS = ("train", "val")


def plain(mask: Mask, path: Path) -> None:
    Image.fromarray(mask).save(path)


def with_(change: Callable[[Mask], Any]) -> Save:
    """Saves what a change makes of a mask."""
    return lambda mask, path: plain(np.asarray(change(mask)), path)


def as_jpeg(mask: Mask, path: Path) -> None:
    Image.fromarray(mask * 100).save(path, format="JPEG")


def of_few_bits(depth: int) -> Save:
    """Saves a mask as a grey PNG of 2 or 4 bits, which Pillow reads but does not write."""

    def save(mask: Mask, path: Path) -> None:
        bits = np.unpackbits(mask[..., None], axis=2)[..., 8 - depth :].reshape(len(mask), -1)
        rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
        path.write_bytes(png(mask.shape[1], mask.shape[0], rows, depth))

    return save


def make(
    root: Path,
    save: Save = plain,
    *,
    val: Save | None = None,
    labels: int = 3,
    names: int = 0,
    orientation: int = 1,
    height: int = 8,
) -> str:
    """Three pairs a part, 16 pixels wide, of stripes of so many labels; their URI.

    ``names`` of classes in classes.txt; ``orientation`` of the images in EXIF.
    """
    mask = (np.arange(16, dtype=np.uint8) * labels // 16)[None].repeat(height, 0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for part, write in zip(PARTS, (save, val or save), strict=True):
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(np.full((height, 16, 3), 99, np.uint8))
            image.save(root / part / "images" / f"{number}.jpg", exif=exif)
            write(mask, root / part / "masks" / f"{number}.png")
    if names:
        (root / "classes.txt").write_text("\n".join(f"class {name}" for name in range(names)))
    return f"pairs:{root}"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "0 and 255": ({"save": with_(lambda m: m * 255), "labels": 2}, "replace 255 with 1"),
    "0 and 255, named": (
        {"save": with_(lambda m: m * 255), "labels": 2, "names": 2},
        "replace 255 with 1",
    ),
    "0 and 255 in val": (
        {"val": with_(lambda m: m * 255), "labels": 2},
        "val/masks: masks contain only 0 and 255",
    ),
    "0 and 128": ({"save": with_(lambda m: m * 128), "labels": 2}, "replace 128 with 1"),
    "a gap": ({"save": with_(lambda m: m * 2)}, "class 1, 3; masks contain 0, 2, 4; number"),
    "one class": ({"labels": 1}, "no pixel has class 1"),
    "from one": ({"save": with_(lambda m: m + 1)}, "subtract 1 from every mask"),
    "from one, named": ({"save": with_(lambda m: m + 1), "names": 3}, "subtract 1 everywhere"),
    "from one, more names": (
        {"save": with_(lambda m: m + 1), "names": 4},
        r"class 0 \(class 0\).*subtract 1 from every mask",
    ),
    "a name too many": ({"names": 4}, r"no pixel has class 3 \(class 3\).*classes\.txt"),
    "all ignored": ({"save": with_(lambda m: m * 0 + 255)}, "train/masks: all pixels are ignored"),
    "nothing to measure": ({"val": with_(lambda m: m * 0 + 255)}, "nothing to measure"),
    "only in val": (
        {"val": with_(lambda m: m * 2)},
        r"val/masks/0\.png: has class 4, but no mask in .*train/masks does",
    ),
    "only in val, named": (
        {"save": with_(lambda m: np.where(m == 2, 255, m)), "val": plain, "names": 2},
        "subtract 1 everywhere",
    ),
    "jpeg": ({"save": as_jpeg}, r"train/masks/0\.png: is a JPEG file, not PNG.*save masks as PNG"),
    "equal channels": (
        {"save": with_(lambda m: np.stack([m] * 3, 2))},
        r"channels are equal, so keep only the first.*getchannel\(0\)",
    ),
    "colours": ({"save": with_(lambda m: np.stack([m, m, m + 9], 2))}, "replace each colour"),
    "upside down": ({"orientation": 3}, r"images/0\.jpg: has EXIF orientation 3.*exif_transpose"),
    "turned square": ({"orientation": 6, "height": 16}, "EXIF orientation 6.*remove the tag"),
    "upright mask": (
        {"orientation": 6, "save": with_(lambda m: np.rot90(m))},
        "EXIF orientation 6.*exif_transpose",
    ),
}  # fmt: skip


@pytest.mark.parametrize("skip", [False, True], ids=["stop", "skip"])
@pytest.mark.parametrize("case", REFUSED)
def test_masks_that_cannot_be_meant_so(tmp_path: Path, case: str, skip: bool) -> None:
    made, says = REFUSED[case]
    how = {"corrupt_images": "skip"} if skip else {}
    assert str(tmp_path) in refused(make(tmp_path, **made), says, **how)


READ: dict[str, dict[str, Any]] = {
    "8 bits": {},
    "1 bit": {"save": with_(lambda m: m > 0), "labels": 2},
    "2 bits": {"save": of_few_bits(2)},
    "4 bits": {"save": of_few_bits(4)},
    "16 bits": {"save": with_(lambda m: m.astype(np.uint16))},
    "named": {"names": 3},
    "turned, with a mask that is too": {"orientation": 6},
    "less in val": {"val": with_(lambda m: m * 0)},
}


@pytest.mark.parametrize("case", READ)
def test_masks_that_are_read_as_they_are(tmp_path: Path, case: str) -> None:
    data = open_data(make(tmp_path, **READ[case]))
    labels = READ[case].get("labels", 3)
    assert data.num_classes == labels
    _, found = data.train.pixels(0)
    assert isinstance(found, torch.Tensor)
    assert found[0].tolist() == (np.arange(16) * labels // 16).tolist()


def test_a_pair_that_is_known_to_be_bad_stays_so(tmp_path: Path) -> None:
    """One image that is turned: its pair is skipped, though it could be decoded."""
    uri = make(tmp_path / "some")
    make(tmp_path / "turned", orientation=3)
    name = Path("train", "images", "1.jpg")
    shutil.copy(tmp_path / "turned" / name, tmp_path / "some" / name)
    with pytest.raises(CorruptImage, match=r"some/train/images/1\.jpg: has EXIF"):
        open_data(uri)
    data = open_data(uri, corrupt_images="skip")
    with pytest.raises(CorruptImage, match=r"train/images/1\.jpg: has EXIF") as caught:
        data.train.pixels(1)
    assert caught.value.name == str(tmp_path / "some" / name)
    data.train.pixels(2)


def test_two_images_with_one_mask(tmp_path: Path) -> None:
    uri = make(tmp_path)
    images = tmp_path / "train" / "images"
    shutil.copy(images / "1.jpg", images / "1.png")
    refused(uri, r"masks/1\.png: is the mask of both .*1\.jpg and .*1\.png")


TRAIN_IDS = [*range(19), IGNORE]
STREETS: dict[str, tuple[list[int], list[int], str]] = {
    "train ids": (TRAIN_IDS, TRAIN_IDS, "train/.*contains train ids.*gtFine_trainvaltest.zip"),
    "train ids without 255": (TRAIN_IDS[:-1], TRAIN_IDS[:-1], "contains train ids"),
    "train ids in val": ([*range(34)], TRAIN_IDS, "val/.*contains train ids"),
    "no id": ([7, 26, 40], [7, 26], "has label 40, but there are 34 classes"),
    "only in val": ([7, 26], [7, 26, 31], r"has class 16 \(train\), but no mask in .*train"),
    "nothing": ([0, 1, 3, 4], [7, 26], "all pixels are ignored"),
}


@pytest.mark.parametrize("case", STREETS)
def test_cityscapes_with_other_ids(tmp_path: Path, case: str) -> None:
    train, val, says = STREETS[case]
    make_cityscapes(tmp_path)
    for part, ids in (("train", train), ("val", val)):
        row = np.resize(np.array(ids, np.uint8), 64)
        for path in (tmp_path / "gtFine" / part).rglob("*_labelIds.png"):
            plain(row[None].repeat(32, 0), path)
    assert str(tmp_path) in refused(f"cityscapes:{tmp_path}", says)


def test_cityscapes_with_train_ids_alone(tmp_path: Path) -> None:
    for path in make_cityscapes(tmp_path).rglob("*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    refused(
        f"cityscapes:{tmp_path}", r"labelTrainIds\.png is not used; unpack", corrupt_images="skip"
    )
