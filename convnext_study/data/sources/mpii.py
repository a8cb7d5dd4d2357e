"""``mpii:PATH``: MPII Human Pose (Andriluka et al., 2014), ``PATH/images`` and its annotation.

Either the authors' own file, ``mpii_human_pose_v1_u12_1.mat``, in ``PATH`` or ``PATH/annot``; its
test part has no joints, so every eighth image of the training part is held out (ours). Or what
HRNet's authors made of it: ``annot/train.json``, ``annot/valid.json`` (Tompson et al.'s split) and
``annot/gt_valid.mat``, which has the sizes of the heads; then results are comparable with theirs.

A person is looked at in a square around its centre, moved down by 15 and of 250 pixels at scale 1,
as in HRNet (Sun et al., 2019).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from convnext_study.data.dataset import CorruptImage, DataError, DatasetPair, OnCorruptImage, digest
from convnext_study.data.decode import decode_pixels
from convnext_study.data.encoded import Names, read_bytes
from convnext_study.data.sources import Opening
from convnext_study.data.sources.listing import SUFFIXES, files_in, is_folder
from convnext_study.data.transforms.joint import Cut
from convnext_study.errors import first_line

Floats = npt.NDArray[np.float32]
# The columns of a joint's row, and of the last row, which tells of the whole person.
JOINT_COLUMNS, PERSON_COLUMNS = ("x", "y", "labelled", "unused"), ("x", "y", "side", "head")


@dataclass(frozen=True)
class Person:
    """One person in an image.

    Args:
        image: the name of its file.
        joints: (joints, 3): place, and 1 where it is labelled, else 0.
        centre: of the square that is looked at.
        side: of that square.
        head: size of the head, by which errors are measured; NaN where it is not known.
    """

    image: str
    joints: Floats
    centre: tuple[float, float]
    side: float
    head: float = math.nan

    def rows(self) -> Floats:
        """(joints + 1, 4): each joint's place and whether it is labelled; last the square's centre
        and side and the head's size."""
        rows = np.zeros((len(self.joints) + 1, len(JOINT_COLUMNS)), dtype=np.float32)
        rows[:-1, :3] = self.joints
        rows[-1] = (*self.centre, self.side, self.head)
        return rows


class People:
    """People in images under ``folder``; ``sizes`` of the files in bytes, by their names."""

    def __init__(self, folder: str, people: Sequence[Person], sizes: Mapping[str, int]) -> None:
        self._folder = folder
        self._names = Names([person.image for person in people])
        self._sizes = np.array([sizes.get(one.image, -1) for one in people], dtype=np.int64)
        self._rows = np.stack([person.rows() for person in people])

    def __len__(self) -> int:
        return len(self._rows)

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole image, (3, H, W) uint8, and a person's rows, (joints + 1, 4) float32.

        Raises CorruptImage.
        """
        path = os.path.join(self._folder, self._names[index])  # noqa: PTH118
        if self._sizes[index] < 0:
            raise CorruptImage(
                f"{path}: is missing, and the annotation names it; restore it, or use "
                f"--corrupt-images skip",
                path,
            )
        image, rows = decode_pixels(read_bytes(path), path), self._rows[index].copy()
        (x, y), half = rows[-1, :2], rows[-1, 2] / 2
        height, width = image.shape[1:]
        if not (-half < x < width + half and -half < y < height + half):
            raise CorruptImage(
                f"{path}: has {width}x{height} pixels, and the annotation a person outside of "
                f"them, around {x:g}, {y:g}; correct it, or use --corrupt-images skip",
                path,
            )
        return image, torch.from_numpy(rows)

    def groups(self) -> torch.Tensor:
        """(N,) int64, a number for each person: those in one image share theirs."""
        names = [self._names[index] for index in range(len(self))]
        return torch.from_numpy(np.unique(names, return_inverse=True)[1])

    def digests(self) -> dict[str, str]:
        """SHA-256 of the images' names and sizes and of all annotations."""
        return {
            "names": self._names.digest(),
            "labels": digest(self._rows),
            "sizes": digest(self._sizes),
        }

    def check_images(self, on_corrupt: OnCorruptImage) -> None:
        """Raises CorruptImage at the first image that is missing, or where all are."""
        missing = np.flatnonzero(self._sizes < 0)
        if len(missing) and (on_corrupt == "stop" or len(missing) == len(self)):
            self.pixels(int(missing[0]))


# In the order of their ids.
JOINTS = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "pelvis",
    "thorax", "neck", "head", "right wrist", "right elbow", "right shoulder", "left shoulder",
    "left elbow", "left wrist",
)  # fmt: skip
# The places of the joints that PCKh counts, and of each the one that it is in a mirror image.
MEASURED = tuple(i for i, joint in enumerate(JOINTS) if joint not in ("pelvis", "thorax"))
_OTHER = {"left": "right", "right": "left"}
MIRRORED = tuple(
    JOINTS.index(" ".join(_OTHER.get(word, word) for word in joint.split())) for joint in JOINTS
)
SIDE, DOWN = 250.0, 15.0  # pixels of the square, and how far it is moved down, at scale 1
HEAD = 0.6  # the size of a head, of the diagonal of its box
CORNER = 0.5  # pixels are counted from 1, and the middle of the first one is at 0.5
FARTHEST = 100_000.0  # pixels: beyond is no place in an image
NOWHERE = (-1 - CORNER, -1 - CORNER)  # how converters mark a centre that is not known
HELD_OUT_EVERY = 8
MAT = "mpii_human_pose_v1_u12_*.mat"


def open_mpii(path: str, how: Opening) -> DatasetPair:
    """People of both parts. Raises DataError naming the path at fault."""
    root = Path(path).expanduser()
    images = root / "images"
    if not is_folder(images):
        raise DataError(f"{images}: no such folder; mpii:PATH needs PATH/images")
    sizes = {
        Path(file).relative_to(images).as_posix(): size
        for file, size in files_in(str(images), SUFFIXES)
    }
    people = _read(root)
    for part, counted in (("train", range(len(JOINTS))), ("val", MEASURED)):
        if not people[part]:
            raise DataError(f"{root}: its annotation holds nobody for {part}")
        if not any(one.joints[counted, 2].any() for one in people[part]):
            raise DataError(
                f"{root}: nobody of its annotation for {part} has a labelled joint that counts; "
                f"there is nothing to {'learn from' if part == 'train' else 'measure'}"
            )
    train, val = (People(str(images), people[part], sizes) for part in ("train", "val"))
    for one in (train, val):
        one.check_images(how.corrupt_images)
    return DatasetPair(
        classes=JOINTS,
        size=Cut.size,
        train=train,
        val=val,
        mirrored=MIRRORED,
        measured=MEASURED,
        val_groups=val.groups(),
    )


def _read(root: Path) -> dict[str, list[Person]]:
    """People of both parts. Raises DataError naming the file and the person at fault."""
    split = [root / "annot" / name for name in ("train.json", "valid.json", "gt_valid.mat")]
    whole = [*sorted(root.glob(MAT)), *sorted((root / "annot").glob(MAT))]
    if all(path.exists() for path in split):
        return _read_split(*split)
    if not whole:
        raise DataError(
            f"{root}: needs {MAT.replace('*', '1')}, or annot/train.json, valid.json and "
            f"gt_valid.mat"
        )
    return _read_whole(whole[0])


@contextlib.contextmanager
def _reading(where: Path | str) -> Iterator[None]:
    """Raises DataError, one line that begins with ``where``, for whatever goes wrong."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # scipy meets broken files with any exception there is
        raise DataError(f"{where}: not an annotation of MPII ({first_line(error)})") from error


def _read_split(train: Path, valid: Path, heads: Path) -> dict[str, list[Person]]:
    from scipy.io import loadmat

    people = {"train": _read_json(train), "val": _read_json(valid)}
    with _reading(heads):
        boxes = np.asarray(loadmat(heads)["headboxes_src"], dtype=float)  # (2 corners, 2, people)
        known = HEAD * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    if known.shape != (len(people["val"]),):
        raise DataError(
            f"{heads}: holds {known.size} heads, and {valid} {len(people['val'])} people; put the "
            f"two of one release there"
        )
    people["val"] = [
        _with_head(replace(one, head=float(head)), f"{heads}: person {number} ({one.image})")
        for number, (one, head) in enumerate(zip(people["val"], known, strict=True))
    ]
    return people


def _read_json(path: Path) -> list[Person]:
    with _reading(path):
        listed = list(json.loads(path.read_text(encoding="utf-8")))
    return [_from_json(one, f"{path}: person {number}") for number, one in enumerate(listed)]


def _from_json(one: Mapping[str, Any], where: str) -> Person:
    with _reading(where):
        where = f"{where} ({one['image']})"
        places = np.asarray(one["joints"], dtype=np.float32)
        labelled = np.asarray(one["joints_vis"], dtype=np.float32) > 0
        if places.shape != (len(JOINTS), 2) or labelled.shape != (len(JOINTS),):
            raise DataError(
                f"{where}: has {len(places)} joints and {labelled.size} marks of which are "
                f"labelled, and MPII {len(JOINTS)}; convert them to MPII's"
            )
        joints = np.column_stack([places - CORNER, labelled])
        return _person(one["image"], joints, one["center"], float(one["scale"]), where)


def _read_whole(path: Path) -> dict[str, list[Person]]:
    from scipy.io import loadmat

    with _reading(path):
        release = loadmat(path, simplify_cells=True)["RELEASE"]
        flags = np.atleast_1d(release["img_train"])
        listed = zip(_several(release["annolist"]), flags, strict=True)
        shown = [image for image, trained in listed if trained]
    people: dict[str, list[Person]] = {"train": [], "val": []}
    count = 0
    for number, image in enumerate(shown):
        with _reading(f"{path}: training image {number}"):
            found = list(_from_mat(image, f"{path}: {image['image']['name']}"))
        if found and count % HELD_OUT_EVERY == 0:
            people["val"] += [_with_head(one, f"{path}: {one.image}") for one in found]
        elif found:
            people["train"] += found
        count += bool(found)
    return people


def _from_mat(image: Mapping[str, Any], where: str) -> Iterator[Person]:
    """The people in an image who have joints, a place and a scale."""
    for one in _several(image["annorect"]):
        points = one.get("annopoints")
        place, scale = one.get("objpos"), one.get("scale")
        if not isinstance(points, dict) or not isinstance(place, dict) or not np.size(scale):
            continue
        joints: Floats = np.zeros((len(JOINTS), 3), dtype=np.float32)
        for point in _several(points["point"]):
            if int(point["id"]) not in range(len(JOINTS)):
                raise DataError(
                    f"{where}: a joint has the id {point['id']}, and MPII's are 0 to "
                    f"{len(JOINTS) - 1}; correct the annotation"
                )
            joints[int(point["id"])] = (point["x"] - CORNER, point["y"] - CORNER, 1)
        head = HEAD * math.hypot(one["x2"] - one["x1"], one["y2"] - one["y1"])
        centre = (place["x"], place["y"])
        name = image["image"]["name"]
        yield replace(_person(name, joints, centre, float(np.max(scale)), where), head=head)


def _person(
    image: str, joints: Floats, centre: Sequence[float], scale: float, where: str
) -> Person:
    """Raises DataError, one line that begins with ``where``, for what is no place."""
    x, y = (float(one) - CORNER for one in centre)
    side, trouble = SIDE * scale, ""
    if not np.all(np.abs(joints) < FARTHEST):  # also True for NaN
        at = int(np.argmin(np.all(np.abs(joints) < FARTHEST, axis=1)))
        trouble = f"joint {at} ({JOINTS[at]}) is at {joints[at, 0]:g}, {joints[at, 1]:g}"
    elif not max(abs(x), abs(y)) < FARTHEST or (x, y) == NOWHERE:
        trouble = f"the centre is at {centre[0]:g}, {centre[1]:g}"
    elif not 1 <= side < FARTHEST:
        trouble = f"the scale is {scale:g}, which makes a square of {side:g} pixels"
    if trouble:
        raise DataError(f"{where}: {trouble}, which is no place; correct or remove that person")
    return Person(image, joints, (x, y + DOWN * scale), side)


def _with_head(one: Person, where: str) -> Person:
    """Raises DataError, one line that begins with ``where``, for a head that measures nothing."""
    if not 0 < one.head < FARTHEST:
        raise DataError(
            f"{where}: has a head of {one.head:g} pixels, and PCKh is measured by heads; correct "
            f"its box or remove that person"
        )
    return one


def _several(found: Any) -> list[Any]:
    """scipy gives one structure as it is, several in an array, and none as an empty one."""
    return [found] if isinstance(found, dict) else list(found)
