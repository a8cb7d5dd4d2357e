"""Odd and broken image files: which are read and how, which stop a run, which are skipped."""

import errno
import io
import os
import signal
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from support.images import make_folder, picture, png, readers_of
from torch.utils.data import get_worker_info

from convnext_study.data import open_data
from convnext_study.data.dataset import CorruptImage, DataError, DatasetPair, Target
from convnext_study.data.decode import decode_image
from convnext_study.data.loader import Batch, train_batches, val_batches
from convnext_study.data.pool import Readers
from convnext_study.data.sharding import BatchSharding
from convnext_study.data.workers import Request, SampleReader
from convnext_study.recipes import MODERN

RECIPE = MODERN.replace(
    global_batch_size=8,
    image_size=32,
    crop="none",
    flip=False,
    rand_augment="",
    color_jitter=0.0,
    random_erasing=0.0,
)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For readers that are given up in the middle of a batch."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_jpeg(side: int = 20_000) -> bytes:
    content = saved(picture(0), "JPEG")
    at = content.index(b"\xff\xc0") + 5  # after the marker, its length and the precision
    return content[:at] + struct.pack(">HH", side, side) + content[at + 4 :]


def floats(*values: float) -> bytes:
    return saved(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "the file is empty"),
    "text": (lambda: b"not an image", "no known image format"),
    "truncated JPEG": (lambda: saved(picture(0, 300, 300), "JPEG")[:-500], "truncated"),
    "JPEG header only": (lambda: saved(picture(0), "JPEG")[:20], ""),
    "truncated PNG": (lambda: saved(picture(0, 300, 300), "PNG")[:900], "truncated"),
    "flipped PNG": (lambda: saved(picture(0), "PNG")[:60] + b"\x00" * 40, ""),
    "huge PNG": (lambda: png(20_000, 20_000, bytes(99)), "more than 178,956,970 pixels"),
    "huge JPEG": (huge_jpeg, "more than 178,956,970 pixels"),
    "thin PNG": (lambda: saved(Image.new("RGB", (60_000, 1)), "PNG"), "60000x1 pixels"),
    "thin JPEG": (lambda: saved(Image.new("RGB", (2, 1_200)), "JPEG"), "2x1200 pixels"),
    "floats below 0": (lambda: floats(-3.0, 7.0), "from -3 to 7"),
    "floats that are none": (lambda: floats(0.0, np.nan), "nan"),
    "32 bits": (
        lambda: saved(Image.fromarray(np.full((9, 9), 1 << 20, np.int32)), "TIFF"),
        "1.04858e",
    ),
}


def broken_folder(root: Path, content: bytes, part: str = "train") -> Path:
    make_folder(root)
    (root / part / "cat" / "3.jpg").write_bytes(content)
    return root


def all_batches(data: DatasetPair, workers: int = 0) -> list[Batch]:
    return list(train_batches(data, RECIPE, 0, 0, 0, partial(readers_of, data, RECIPE, workers)))


@pytest.mark.parametrize("damage", BROKEN)
def test_broken_images_stop_and_are_named(tmp_path: Path, damage: str) -> None:
    make, says = BROKEN[damage]
    data = open_data(f"folder:{broken_folder(tmp_path, make())}")
    with pytest.raises(CorruptImage, match=rf"3\.jpg: cannot be decoded.*{says}") as caught:
        all_batches(data)
    assert "\n" not in str(caught.value)
    assert caught.value.name == str(tmp_path / "train" / "cat" / "3.jpg")


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_line_survives_the_workers(tmp_path: Path, part: str) -> None:
    data = open_data(f"folder:{broken_folder(tmp_path, b'', part)}")
    says = rf"^[^\n]*{part}/cat/3\.jpg.*empty.*--corrupt-images skip$"
    with pytest.raises(DataError, match=says):
        all_batches(data, workers=2)
        list(val_batches(data, RECIPE, 4, partial(readers_of, data, RECIPE, 2)))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_takes_the_next_image_and_counts(tmp_path: Path, workers: int) -> None:
    root = make_folder(tmp_path)
    for name in ("cat/2.jpg", "cat/3.jpg", "dog/3.jpg"):
        (root / "train" / name).write_bytes(b"")
    data = open_data(f"folder:{root}", corrupt_images="skip")
    (batch,) = all_batches(data, workers)
    # 2 and 3 are replaced by the first dog, the last dog by the first cat.
    assert batch.labels.sort().values.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert len(batch.images.unique(dim=0)) == 5
    assert sorted(Path(name).name for name in data.corrupt.names) == ["2.jpg", "3.jpg", "3.jpg"]
    assert data.corrupt.replaced == 3
    (again,) = all_batches(data)
    assert torch.equal(batch.images, again.images)
    assert (len(data.corrupt.names), data.corrupt.replaced) == (3, 6)


def test_replacement_does_not_depend_on_the_split(tmp_path: Path) -> None:
    root = broken_folder(tmp_path, b"")
    recipe = MODERN.replace(global_batch_size=8, image_size=32)
    (whole,) = train_batches(open_data(f"folder:{root}", corrupt_images="skip"), recipe, 0, 0)
    halves, names = [], []
    for rank in range(2):
        data = open_data(f"folder:{root}", corrupt_images="skip")
        halves += [
            one.images for one in train_batches(data, recipe, 0, 0, 0, None, BatchSharding(rank, 2))
        ]
        names += sorted(data.corrupt.names)
    assert torch.equal(whole.images.unique(dim=0), torch.cat(halves).unique(dim=0))
    assert len(names) == 1


@pytest.mark.parametrize(
    ("batch", "world", "workers"), [(1, 1, 0), (3, 2, 0), (64, 3, 0), (80, 1, 0), (64, 1, 2)]
)
def test_a_bad_validation_image_is_left_out_and_counted_once(
    tmp_path: Path, batch: int, world: int, workers: int
) -> None:
    root = make_folder(tmp_path, count=35)
    # A first, a last, two neighbours, and all 32 of the part that a reader takes at a time.
    bad = {0, 69, 36, 37, *range(32, 64)}
    for index in bad:
        (root / "val" / ("cat", "dog")[index // 35] / f"{index % 35}.jpg").write_bytes(b"")
    data = open_data(f"folder:{root}", corrupt_images="skip")
    names = sorted(str(path) for path in (root / "val").rglob("*.jpg"))  # of the data set's order
    whole = [index for index, name in enumerate(names) if Path(name).stat().st_size]
    labels, places = [], []
    for rank in range(world):
        reading = partial(readers_of, data, RECIPE, workers)
        for one in val_batches(data, RECIPE, batch, reading, BatchSharding(rank, world)):
            assert len(one.images) == len(one) > 0
            labels += one.labels.tolist()
            places += one.positions.tolist()
            for place, pixels in zip(one.positions.tolist(), one.images, strict=True):
                assert pixels.shape == (3, 32, 32), place
    assert places == whole
    assert labels == [int(place >= 35) for place in whole]
    assert (data.corrupt.replaced, len(data.corrupt.names)) == (len(bad), len(bad))


def test_when_nothing_is_readable_it_stops(tmp_path: Path) -> None:
    root = make_folder(tmp_path, count=2)
    for file in (root / "train").rglob("*.jpg"):
        file.write_bytes(b"")
    data = open_data(f"folder:{root}", corrupt_images="skip")
    with pytest.raises(DataError, match="and the 3 images after it cannot be decoded"):
        all_batches(data, workers=1)


def _killed(pixels: torch.Tensor, label: Target) -> tuple[torch.Tensor, Target, None]:
    if get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory is short
    return pixels, label, None


def test_what_a_killed_reader_leaves_is_read(
    tmp_path: Path,
) -> None:
    data = open_data(f"folder:{make_folder(tmp_path)}")
    readers = Readers({"train": SampleReader(data.train, _killed, 0)}, workers=1)
    found = list(readers.read([Request("train", (0, 1)), Request("train", (6, 7))]))
    assert [images.labels for images in found] == [[0, 0], [1, 1]]
    assert "fewer --workers" in readers.failure and "\n" not in readers.failure
    readers.failure = ""


def test_a_file_that_went_away_stops_even_when_skipping(tmp_path: Path) -> None:
    data = open_data(f"folder:{make_folder(tmp_path)}", corrupt_images="skip")
    (tmp_path / "train" / "dog" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"dog/1\.jpg: cannot be read \(No such file"):
        all_batches(data, workers=1)


class Broken:
    """A torchvision data set, or timm's reader of the hub's, that fails at its second image."""

    classes = ("cat", "dog")
    label_key = "label"
    class_to_idx: ClassVar = {"cat": 0, "dog": 1}

    def __init__(self, error: Exception, *, decoded: bool) -> None:
        self.error, self.decoded, self.dataset = error, decoded, {"label": [0, 1, 0, 1]}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index == 1:
            raise self.error
        image = picture(index)
        return image if self.decoded else io.BytesIO(saved(image, "PNG")), index % 2


def lost(code: int) -> OSError:
    return OSError(code, os.strerror(code), "/data/gone/1.jpg")


LOST = [errno.ENOENT, errno.EIO, errno.ENOTCONN, errno.EACCES, errno.ESTALE]
NO_IMAGE = [
    UnidentifiedImageError("cannot identify image file"),
    OSError("image file is truncated (3 bytes not processed)"),
    OSError(errno.EINVAL, "Invalid argument"),  # a seek to before the file's start
    SyntaxError("broken PNG file"),
]


def opened(monkeypatch: pytest.MonkeyPatch, uri: str, error: Exception) -> DatasetPair:
    for name, decoded in (("create_dataset", True), ("readers.create_reader", False)):
        broken = Broken(error, decoded=decoded)
        monkeypatch.setattr(f"timm.data.{name}", lambda *_, broken=broken, **__: broken)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "datasets" or None)
    return open_data(uri, corrupt_images="skip")


@pytest.mark.parametrize("uri", ["timm:torch/places365?size=32", "timm:hfds/o/N?size=32"])
@pytest.mark.parametrize(("code", "workers"), [*((code, 0) for code in LOST), (errno.EIO, 1)])
def test_a_lost_mount_is_no_bad_image_for_other_readers(
    monkeypatch: pytest.MonkeyPatch, uri: str, code: int, workers: int
) -> None:
    data = opened(monkeypatch, uri, lost(code))
    with pytest.raises(DataError, match=r"^/data/gone/1\.jpg: cannot be read") as caught:
        small = RECIPE.replace(global_batch_size=4)
        list(train_batches(data, small, 0, 0, 0, partial(readers_of, data, small, workers)))
    assert not isinstance(caught.value, CorruptImage)
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        *(("torch/places365", error) for error in NO_IMAGE),
        ("hfds/o/N", AssertionError()),  # a row without an image
        ("hfds/o/N", TypeError("'NoneType' is no container")),
    ],
)
def test_errors_of_decoders(monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception) -> None:
    data = opened(monkeypatch, f"timm:{kind}?size=32", error)
    list(train_batches(data, RECIPE.replace(global_batch_size=4), 0, 0))
    assert data.corrupt.names == {f"{kind}[1]"}


def pixels_of(content: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image(content, "name")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


GREY, PALETTE = picture(1).convert("L"), picture(2).quantize(64)
CLEAR = picture(4).convert("RGBA")
CLEAR.putalpha(0)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # a quarter turn, which is not applied
PLAIN: dict[str, tuple[bytes, Image.Image]] = {
    "grey": (saved(GREY, "PNG"), GREY),
    "grey with alpha": (saved(GREY.convert("LA"), "PNG"), GREY),
    "black and white": (saved(GREY.convert("1"), "PNG"), GREY.convert("1")),
    "palette": (saved(PALETTE, "PNG", transparency=3), PALETTE),
    "palette with alpha": (saved(PALETTE, "PNG", transparency=bytes(range(0, 256, 2))), PALETTE),
    "transparent": (saved(CLEAR, "PNG"), picture(4)),
    "turned": (saved(picture(5), "PNG", exif=TURNED), picture(5)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_images_of_other_modes_become_colours(kind: str) -> None:
    content, image = PLAIN[kind]
    assert np.array_equal(pixels_of(content), np.asarray(image.convert("RGB")))


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    pixels = pixels_of(saved(red.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels - [250, 10, 10]).max() < 12


RAMP = np.linspace(0, 1, 256).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 4095).astype(np.uint16), "PNG"),
        ((RAMP * 255).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        ((RAMP * 4095).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 65535).astype(np.float32), "TIFF"),
    ],
)
def test_grey_of_any_kind_is_neither_black_nor_white(values: np.ndarray, kind: str) -> None:
    pixels = pixels_of(saved(Image.fromarray(values), kind))
    assert np.abs(pixels[..., 1] - RAMP * 255).max() <= 1


def test_black_and_white_in_many_bits() -> None:
    values = np.array([[0, 1], [1, 0]])
    for one in (values.astype(np.uint16), values.astype(np.int32), values.astype(np.float32)):
        pixels = pixels_of(saved(Image.fromarray(one), "TIFF"))
        assert np.array_equal(pixels[..., 0], 255 * values)
    assert not pixels_of(saved(Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG")).any()
