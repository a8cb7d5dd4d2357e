"""``mpii:PATH``: MPII Human Pose (Andriluka et al., 2014), ``PATH/images`` and its annotation.

The annotation is the authors' own file, ``mpii_human_pose_v1_u12_1.mat``, in ``PATH`` or
``PATH/annot``; its test part has no joints, so every eighth image of the training part is held out
(our choice). Or it is the version of HRNet's authors: ``annot/train.json``, ``annot/valid.json``
(Tompson et al.'s split) and ``annot/gt_valid.mat`` with the head sizes, for comparable results.

Each person is cropped to a square of 250 pixels at scale 1, centred 15 below the annotated centre,
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
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.listing import SUFFIXES, files_in, is_folder
from convnext_study.data.transforms.joint import PersonCrop
from convnext_study.errors import first_line

Floats = npt.NDArray[np.float32]
# The columns of a joint's row, and of the last row, which describes the whole person.
JOINT_COLUMNS, PERSON_COLUMNS = ("x", "y", "labelled", "unused"), ("x", "y", "side", "head")


@dataclass(frozen=True)
class Person:
    """One person in an image.

    Args:
        image: the name of its file.
        joints: (joints, 3): x, y, and 1 if the joint is labelled, else 0.
        centre: of the square crop.
        side: of that square, in pixels.
        head: size of the head, by which errors are normalised; NaN if it is unknown.
    """

    image: str
    joints: Floats
    centre: tuple[float, float]
    side: float
    head: float = math.nan

    def rows(self) -> Floats:
        """(joints + 1, 4): each joint's position and whether it is labelled; in the last row the
        square's centre and side and the head's size."""
        rows = np.zeros((len(self.joints) + 1, len(JOINT_COLUMNS)), dtype=np.float32)
        rows[:-1, :3] = self.joints
        rows[-1] = (*self.centre, self.side, self.head)
        return rows


class People:
    """People in images under ``folder``; ``sizes`` of the files in bytes, by name."""

    def __init__(self, folder: str, people: Sequence[Person], sizes: Mapping[str, int]) -> None:
        self._folder = folder
        self._names = Names([person.image for person in people])
        self._sizes = np.array([sizes.get(person.image, -1) for person in people], dtype=np.int64)
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
                f"{path}: is named in the annotation, but missing; restore it, or use "
                "--corrupt-images skip",
                path,
            )
        image, rows = decode_pixels(read_bytes(path), path), self._rows[index].copy()
        (x, y), half = rows[-1, :2], rows[-1, 2] / 2
        height, width = image.shape[1:]
        if not (-half < x < width + half and -half < y < height + half):
            raise CorruptImage(
                f"{path}: has {width}x{height} pixels, but the annotation places a person "
                f"outside, around {x:g}, {y:g}; correct it, or use --corrupt-images skip",
                path,
            )
        return image, torch.from_numpy(rows)

    def groups(self) -> torch.Tensor:
        """(N,) int64, a group for each person: the image that they are in."""
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
        """Raises CorruptImage for the first missing image; if those are skipped, if all are."""
        missing = np.flatnonzero(self._sizes < 0)
        if len(missing) and (on_corrupt == "stop" or len(missing) == len(self)):
            self.pixels(int(missing[0]))


# In the order of MPII's ids.
JOINTS = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "pelvis",
    "thorax", "neck", "head", "right wrist", "right elbow", "right shoulder", "left shoulder",
    "left elbow", "left wrist",
)  # fmt: skip
# Indices of the joints that PCKh counts, and each joint's counterpart in a mirrored image.
MEASURED = tuple(i for i, joint in enumerate(JOINTS) if joint not in ("pelvis", "thorax"))
_OPPOSITE = {"left": "right", "right": "left"}
MIRRORED = tuple(
    JOINTS.index(" ".join(_OPPOSITE.get(word, word) for word in joint.split())) for joint in JOINTS
)
SIDE, DOWN = 250.0, 15.0  # the square's side and its offset downwards, in pixels at scale 1
HEAD = 0.6  # the size of a head, as a fraction of the diagonal of its box
CORNER = 0.5  # annotations count pixels from 1; here the centre of the first is at 0.5
FARTHEST = 100_000.0  # pixels: larger coordinates are invalid
NOWHERE = (-1 - CORNER, -1 - CORNER)  # how converters mark an unknown centre
HELD_OUT_EVERY = 8
MAT = "mpii_human_pose_v1_u12_*.mat"


def open_mpii(path: str, request: OpenRequest) -> DatasetPair:
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
            raise DataError(f"{root}: its annotation has no people for {part}")
        if not any(person.joints[counted, 2].any() for person in people[part]):
            raise DataError(
                f"{root}: its annotation for {part} has no person with a labelled joint that "
                f"counts; there is nothing to {'learn from' if part == 'train' else 'measure'}"
            )
    train, val = (People(str(images), people[part], sizes) for part in ("train", "val"))
    for images_of_part in (train, val):
        images_of_part.check_images(request.corrupt_images)
    return DatasetPair(
        classes=JOINTS,
        size=PersonCrop.size,
        train=train,
        val=val,
        mirrored=MIRRORED,
        measured=MEASURED,
        val_groups=val.groups(),
    )


def _read(root: Path) -> dict[str, list[Person]]:
    """People of both parts. Raises DataError naming the file and the person at fault."""
    split = [root / "annot" / name for name in ("train.json", "valid.json", "gt_valid.mat")]
    release = [*sorted(root.glob(MAT)), *sorted((root / "annot").glob(MAT))]
    if all(path.exists() for path in split):
        return _read_split(*split)
    if not release:
        raise DataError(
            f"{root}: needs {MAT.replace('*', '1')}, or annot/train.json, valid.json and "
            f"gt_valid.mat"
        )
    return _read_release(release[0])


@contextlib.contextmanager
def _reading(where: Path | str) -> Iterator[None]:
    """Raises DataError, one line that begins with ``where``, for whatever goes wrong."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # scipy raises any kind of exception for broken files
        raise DataError(f"{where}: not an MPII annotation ({first_line(error)})") from error


def _read_split(train: Path, valid: Path, heads: Path) -> dict[str, list[Person]]:
    from scipy.io import loadmat

    people = {"train": _read_json(train), "val": _read_json(valid)}
    with _reading(heads):
        boxes = np.asarray(loadmat(heads)["headboxes_src"], dtype=float)  # (2 corners, 2, people)
        sizes = HEAD * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    if sizes.shape != (len(people["val"]),):
        raise DataError(
            f"{heads}: has {sizes.size} heads, but {valid} has {len(people['val'])} people; use "
            "both files from the same release"
        )
    people["val"] = [
        _check_head(replace(person, head=float(size)), f"{heads}: person {i} ({person.image})")
        for i, (person, size) in enumerate(zip(people["val"], sizes, strict=True))
    ]
    return people


def _read_json(path: Path) -> list[Person]:
    with _reading(path):
        entries = list(json.loads(path.read_text(encoding="utf-8")))
    return [_from_json(entry, f"{path}: person {number}") for number, entry in enumerate(entries)]


def _from_json(entry: Mapping[str, Any], where: str) -> Person:
    with _reading(where):
        where = f"{where} ({entry['image']})"
        positions = np.asarray(entry["joints"], dtype=np.float32)
        labelled = np.asarray(entry["joints_vis"], dtype=np.float32) > 0
        if positions.shape != (len(JOINTS), 2) or labelled.shape != (len(JOINTS),):
            raise DataError(
                f"{where}: has {len(positions)} joints and {labelled.size} visibility flags, but "
                f"MPII has {len(JOINTS)}; convert them to MPII's"
            )
        joints = np.column_stack([positions - CORNER, labelled])
        return _person(entry["image"], joints, entry["center"], float(entry["scale"]), where)


def _read_release(path: Path) -> dict[str, list[Person]]:
    from scipy.io import loadmat

    with _reading(path):
        release = loadmat(path, simplify_cells=True)["RELEASE"]
        flags = np.atleast_1d(release["img_train"])
        images = zip(_as_list(release["annolist"]), flags, strict=True)
        labelled = [image for image, trained in images if trained]
    people: dict[str, list[Person]] = {"train": [], "val": []}
    count = 0
    for number, image in enumerate(labelled):
        with _reading(f"{path}: training image {number}"):
            in_image = list(_from_mat(image, f"{path}: {image['image']['name']}"))
        if in_image and count % HELD_OUT_EVERY == 0:
            people["val"] += [_check_head(person, f"{path}: {person.image}") for person in in_image]
        elif in_image:
            people["train"] += in_image
        count += bool(in_image)
    return people


def _from_mat(image: Mapping[str, Any], where: str) -> Iterator[Person]:
    """The people in an image who have joints, a position and a scale."""
    for rect in _as_list(image["annorect"]):
        points = rect.get("annopoints")
        position, scale = rect.get("objpos"), rect.get("scale")
        if not isinstance(points, dict) or not isinstance(position, dict) or not np.size(scale):
            continue
        joints: Floats = np.zeros((len(JOINTS), 3), dtype=np.float32)
        for point in _as_list(points["point"]):
            if int(point["id"]) not in range(len(JOINTS)):
                raise DataError(
                    f"{where}: a joint has the id {point['id']}, but MPII's are 0 to "
                    f"{len(JOINTS) - 1}; correct the annotation"
                )
            joints[int(point["id"])] = (point["x"] - CORNER, point["y"] - CORNER, 1)
        head = HEAD * math.hypot(rect["x2"] - rect["x1"], rect["y2"] - rect["y1"])
        centre = (position["x"], position["y"])
        name = image["image"]["name"]
        yield replace(_person(name, joints, centre, float(np.max(scale)), where), head=head)


def _person(
    image: str, joints: Floats, centre: Sequence[float], scale: float, where: str
) -> Person:
    """Raises DataError, one line that begins with ``where``, for an invalid position."""
    x, y = (float(value) - CORNER for value in centre)
    side, problem = SIDE * scale, ""
    if not np.all(np.abs(joints) < FARTHEST):  # also True for NaN
        at = int(np.argmin(np.all(np.abs(joints) < FARTHEST, axis=1)))
        problem = f"joint {at} ({JOINTS[at]}) is at {joints[at, 0]:g}, {joints[at, 1]:g}"
    elif not max(abs(x), abs(y)) < FARTHEST or (x, y) == NOWHERE:
        problem = f"the centre is at {centre[0]:g}, {centre[1]:g}"
    elif not 1 <= side < FARTHEST:
        problem = f"the scale is {scale:g}, which makes a square of {side:g} pixels"
    if problem:
        raise DataError(
            f"{where}: {problem}, which is not a valid position; correct or remove that person"
        )
    return Person(image, joints, (x, y + DOWN * scale), side)


def _check_head(person: Person, where: str) -> Person:
    """Raises DataError, one line that begins with ``where``, for an invalid head size."""
    if not 0 < person.head < FARTHEST:
        raise DataError(
            f"{where}: has a head of {person.head:g} pixels, but PCKh needs the head size; "
            "correct its box or remove that person"
        )
    return person


def _as_list(value: Any) -> list[Any]:
    """Structures as a list: scipy returns one bare, several in an array, none in an empty one."""
    return [value] if isinstance(value, dict) else list(value)
