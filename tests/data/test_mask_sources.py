"""What each kind of data with a label for every pixel holds, and what it says of bad pairs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.dense import CITY, dense_readers, make_cityscapes, make_pairs, mask
from support.images import picture, refused

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
    for part in (data.train, data.val):
        scans = {scan.numpy().tobytes() for scan in part.scans}  # type: ignore[attr-defined]
        blocks = [one.unfold(1, 16, 16).unfold(2, 16, 16) for one in part.photos]  # type: ignore[attr-defined]
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


def test_names_of_classes_from_a_file(tmp_path: Path) -> None:
    (make_pairs(tmp_path) / "classes.txt").write_text("sky\nsea\nland\n")
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


def _remove(path: Path) -> None:
    path.unlink()


def _small(path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)


def _out_of_range(path: Path) -> None:
    Image.fromarray(np.full((40, 50), 9, np.uint8)).save(path)


def _colours(path: Path) -> None:
    picture(0).save(path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _wide(path: Path) -> None:
    Image.fromarray(np.full((40, 50), 300, np.uint16)).save(path)


BAD = {
    "missing": (_remove, "is missing, the mask of train/images/1.jpg"),
    "size": (_small, "is 5x4 pixels, and its image 50x40"),
    "range": (_out_of_range, "holds label 9; there are 3 classes"),
    "colours": (_colours, "one number a pixel"),
    "cut": (_cut, "not a readable image"),
    "16 bits": (_wide, "holds label 300"),
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
    _small(make_pairs(tmp_path) / "val" / "masks" / "0.png")
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


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: f"pairs:{root}/none", "none: no such folder"),
    "other folder": (lambda root: f"pairs:{root}", "needs train/images and train/masks"),
    "no cityscapes": (lambda root: f"cityscapes:{root}", "leftImg8bit and gtFine"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, kind: str) -> None:
    uri, says = REFUSED[kind]
    with pytest.raises(DataError, match=says) as caught:
        open_data(str(uri(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_missing_cityscapes_mask_is_named(tmp_path: Path) -> None:
    fine = make_cityscapes(tmp_path) / "gtFine" / "train" / CITY
    path = fine / f"{CITY}_000001_000019_gtFine_labelIds.png"
    path.unlink()
    refused(f"cityscapes:{tmp_path}", str(path))


def test_the_fingerprint_tells_changed_masks(tmp_path: Path) -> None:
    before = fingerprint(open_data(f"pairs:{make_pairs(tmp_path / 'one')}"))
    same = fingerprint(open_data(f"pairs:{make_pairs(tmp_path / 'two')}"))
    check_same(before, same, "here")
    mask(0).save(tmp_path / "two" / "train" / "masks" / "0.png", compress_level=0)
    with pytest.raises(DataError, match="here: train holds 6 images as recorded, but of other"):
        check_same(before, fingerprint(open_data(f"pairs:{tmp_path / 'two'}")), "here")
