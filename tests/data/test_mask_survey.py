"""Masks that are not saved as they are read: one line before anything trains, with the cure."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import ExifTags, Image
from support.dense import make_cityscapes
from support.images import refused

from convnext_study.data import open_data
from convnext_study.data.dataset import IGNORE, CorruptImage, DataError

Mask = npt.NDArray[np.uint8]
PARTS = ("train", "val")


def plain(mask: Mask, path: Path) -> None:
    Image.fromarray(mask).save(path)


def with_(change: Callable[[Mask], Any]) -> Callable[[Mask, Path], None]:
    """Saves what a change makes of a mask."""
    return lambda mask, path: plain(np.asarray(change(mask)), path)


def as_jpeg(mask: Mask, path: Path) -> None:
    Image.fromarray(mask * 100).save(path, format="JPEG")


def of_few_bits(depth: int) -> Callable[[Mask, Path], None]:
    """Saves a mask as a grey PNG of 2 or 4 bits, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    def save(mask: Mask, path: Path) -> None:
        bits = np.unpackbits(mask[..., None], axis=2)[..., 8 - depth :].reshape(len(mask), -1)
        rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
        header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], depth, 0, 0, 0, 0)
        chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

    return save


def make(
    root: Path,
    save: Callable[[Mask, Path], None] = plain,
    *,
    val: Callable[[Mask, Path], None] | None = None,
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
    "0 and 255": ({"save": with_(lambda m: m * 255), "labels": 2}, "write 1 in place of 255"),
    "0 and 255, named": (
        {"save": with_(lambda m: m * 255), "labels": 2, "names": 2},
        "write 1 in place of 255",
    ),
    "0 and 255 in val": (
        {"val": with_(lambda m: m * 255), "labels": 2},
        "val/masks: masks hold 0 and 255 alone",
    ),
    "0 and 128": ({"save": with_(lambda m: m * 128), "labels": 2}, "write 1 in place of 128"),
    "a gap": ({"save": with_(lambda m: m * 2)}, "class 1, 3, masks hold 0, 2, 4; number the"),
    "one class": ({"labels": 1}, "no pixel is of class 1"),
    "from one": ({"save": with_(lambda m: m + 1)}, "subtract 1 from every mask"),
    "from one, named": ({"save": with_(lambda m: m + 1), "names": 3}, "subtract 1 from every"),
    "from one, more names": (
        {"save": with_(lambda m: m + 1), "names": 4},
        r"class 0 \(class 0\).*subtract 1 from every mask",
    ),
    "a name too many": ({"names": 4}, r"no pixel is of class 3 \(class 3\).*classes\.txt"),
    "all ignored": ({"save": with_(lambda m: m * 0 + 255)}, "train/masks: no pixel has a class"),
    "nothing to measure": ({"val": with_(lambda m: m * 0 + 255)}, "nothing to measure"),
    "only in val": (
        {"val": with_(lambda m: m * 2)},
        r"val/masks/0\.png: holds class 4, and no mask in .*train/masks does",
    ),
    "only in val, named": (
        {"save": with_(lambda m: np.where(m == 2, 255, m)), "val": plain, "names": 2},
        "subtract 1 from every one",
    ),
    "jpeg": ({"save": as_jpeg}, r"train/masks/0\.png: holds JPEG and no PNG.*save masks as PNG"),
    "equal channels": (
        {"save": with_(lambda m: np.stack([m] * 3, 2))},
        r"channels are equal: keep the first.*getchannel\(0\)",
    ),
    "colours": ({"save": with_(lambda m: np.stack([m, m, m + 9], 2))}, "give each colour its"),
    "upside down": ({"orientation": 3}, r"train/images/0\.jpg: EXIF orientation 3.*exif_transpose"),
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
    uri = make(tmp_path, **made)
    with pytest.raises(DataError, match=says) as caught:
        open_data(uri, corrupt_images="skip" if skip else "stop")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


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
    with pytest.raises(CorruptImage, match=r"some/train/images/1\.jpg: EXIF"):
        open_data(uri)
    data = open_data(uri, corrupt_images="skip")
    with pytest.raises(CorruptImage, match=r"train/images/1\.jpg: EXIF") as caught:
        data.train.pixels(1)
    assert caught.value.name == str(tmp_path / "some" / name)
    data.train.pixels(2)


def test_two_images_with_one_mask(tmp_path: Path) -> None:
    uri = make(tmp_path)
    images = tmp_path / "train" / "images"
    shutil.copy(images / "1.jpg", images / "1.png")
    refused(uri, r"masks/1\.png: is the mask of .*1\.jpg and of .*1\.png")


TRAIN_IDS = [*range(19), IGNORE]
STREETS: dict[str, tuple[list[int], list[int], str]] = {
    "train ids": (TRAIN_IDS, TRAIN_IDS, "train/.*holds train ids.*gtFine_trainvaltest.zip"),
    "train ids without 255": (TRAIN_IDS[:-1], TRAIN_IDS[:-1], "holds train ids"),
    "train ids in val": ([*range(34)], TRAIN_IDS, "val/.*holds train ids"),
    "no id": ([7, 26, 40], [7, 26], "holds label 40; there are 34 classes"),
    "only in val": ([7, 26], [7, 26, 31], r"holds class 16 \(train\), and no mask in .*train"),
    "nothing": ([0, 1, 3, 4], [7, 26], "no pixel has a class"),
    "read": ([7, 8, 11], [7, 8], ""),
}


@pytest.mark.parametrize("case", STREETS)
def test_cityscapes_with_other_ids(tmp_path: Path, case: str) -> None:
    train, val, says = STREETS[case]
    make_cityscapes(tmp_path)
    for part, ids in (("train", train), ("val", val)):
        row = np.resize(np.array(ids, np.uint8), 64)
        for path in (tmp_path / "gtFine" / part).rglob("*_labelIds.png"):
            plain(row[None].repeat(32, 0), path)
    if not says:
        assert open_data(f"cityscapes:{tmp_path}").num_classes == 19
        return
    with pytest.raises(DataError, match=says) as caught:
        open_data(f"cityscapes:{tmp_path}")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_cityscapes_with_train_ids_alone(tmp_path: Path) -> None:
    for path in make_cityscapes(tmp_path).rglob("*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    refused(
        f"cityscapes:{tmp_path}", r"labelTrainIds\.png is not read; unpack", corrupt_images="skip"
    )
