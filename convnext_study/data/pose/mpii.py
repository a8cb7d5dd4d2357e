"""``mpii:PATH``: MPII Human Pose (Andriluka et al., 2014), ``PATH/images`` and its annotation.

Either the authors' own file, ``mpii_human_pose_v1_u12_1.mat``, in ``PATH`` or ``PATH/annot``; its
test part has no joints, so every eighth image of the training part is held out (ours). Or what
HRNet's authors made of it: ``annot/train.json``, ``annot/valid.json`` (Tompson et al.'s split) and
``annot/gt_valid.mat``, which has the sizes of the heads; then results are comparable with theirs.

A person is looked at in a square around its centre, moved down by 15 and of 250 pixels at scale 1,
as in HRNet (Sun et al., 2019).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnext_study.data.dataset import DataError
from convnext_study.data.pose.people import Floats, People, Person, PoseData
from convnext_study.data.sources.folder import SUFFIXES
from convnext_study.data.sources.listing import files_in, is_folder

# In the order of their ids.
JOINTS = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "pelvis",
    "thorax", "neck", "head", "right wrist", "right elbow", "right shoulder", "left shoulder",
    "left elbow", "left wrist",
)  # fmt: skip
UNMEASURED = ("pelvis", "thorax")  # joints that PCKh leaves out
SIDE, DOWN = 250.0, 15.0  # pixels of the square, and how far it is moved down, at scale 1
HEAD = 0.6  # the size of a head, of the diagonal of its box
CORNER = 0.5  # pixels are counted from 1, and the middle of the first one is at 0.5
HELD_OUT_EVERY = 8
MAT = "mpii_human_pose_v1_u12_*.mat"


def open_mpii(path: str) -> PoseData:
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
    for part, found in people.items():
        if not found:
            raise DataError(f"{root}: its annotation holds nobody for {part}")
    return PoseData(
        uri=f"mpii:{path}",
        classes=JOINTS,
        mirrored=tuple(JOINTS.index(_mirrored(joint)) for joint in JOINTS),
        measured=tuple(i for i, joint in enumerate(JOINTS) if joint not in UNMEASURED),
        train=People(str(images), people["train"], sizes),
        val=People(str(images), people["val"], sizes),
    )


def _read(root: Path) -> dict[str, list[Person]]:
    split = [root / "annot" / name for name in ("train.json", "valid.json", "gt_valid.mat")]
    whole = [*sorted(root.glob(MAT)), *sorted((root / "annot").glob(MAT))]
    if not whole and not all(path.exists() for path in split):
        raise DataError(
            f"{root}: needs {MAT.replace('*', '1')}, or annot/train.json, valid.json and "
            f"gt_valid.mat"
        )
    paths = split if all(path.exists() for path in split) else whole[:1]
    try:
        return _read_split(*split) if paths is split else _read_whole(*paths)
    except Exception as error:  # scipy meets broken files with any exception there is
        reason = (str(error) or type(error).__name__).splitlines()[0]
        named = ", ".join(map(str, paths))
        raise DataError(f"{named}: not an annotation of MPII ({reason})") from error


def _read_split(train: Path, valid: Path, heads: Path) -> dict[str, list[Person]]:
    from scipy.io import loadmat

    boxes = np.asarray(loadmat(heads)["headboxes_src"], dtype=float)  # (2 corners, 2, people)
    known = HEAD * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    people = {
        part: [_from_json(one) for one in json.loads(path.read_text(encoding="utf-8"))]
        for part, path in (("train", train), ("val", valid))
    }
    if len(known) != len(people["val"]):
        raise ValueError(f"{len(known)} heads of {len(people['val'])} people")
    people["val"] = [
        Person(one.image, one.joints, one.centre, one.side, float(head))
        for one, head in zip(people["val"], known, strict=True)
    ]
    return people


def _from_json(one: Mapping[str, Any]) -> Person:
    joints = np.zeros((len(JOINTS), 3), dtype=np.float32)
    joints[:, :2] = np.asarray(one["joints"], dtype=np.float32) - CORNER
    joints[:, 2] = np.asarray(one["joints_vis"], dtype=np.float32) > 0
    return _person(one["image"], joints, one["center"], float(one["scale"]))


def _read_whole(path: Path) -> dict[str, list[Person]]:
    from scipy.io import loadmat

    release = loadmat(path, simplify_cells=True)["RELEASE"]
    people: dict[str, list[Person]] = {"train": [], "val": []}
    count = 0
    for image, trained in zip(
        _several(release["annolist"]), np.atleast_1d(release["img_train"]), strict=True
    ):
        found = list(_from_mat(image)) if trained else []
        if found:
            people["val" if count % HELD_OUT_EVERY == 0 else "train"] += found
            count += 1
    return people


def _from_mat(image: Mapping[str, Any]) -> Iterator[Person]:
    """The people in an image who have joints, a place and a scale."""
    for one in _several(image["annorect"]):
        points = one.get("annopoints")
        place, scale = one.get("objpos"), one.get("scale")
        if not isinstance(points, dict) or not isinstance(place, dict) or not np.size(scale):
            continue
        joints: Floats = np.zeros((len(JOINTS), 3), dtype=np.float32)
        for point in _several(points["point"]):
            joints[int(point["id"])] = (point["x"] - CORNER, point["y"] - CORNER, 1)
        head = HEAD * math.hypot(one["x2"] - one["x1"], one["y2"] - one["y1"])
        centre = (place["x"], place["y"])
        yield _person(image["image"]["name"], joints, centre, float(np.max(scale)), head)


def _person(
    image: str, joints: Floats, centre: Sequence[float], scale: float, head: float = math.nan
) -> Person:
    x, y = float(centre[0]) - CORNER, float(centre[1]) - CORNER
    return Person(image, joints, (x, y + DOWN * scale), SIDE * scale, head)


def _several(found: Any) -> list[Any]:
    """scipy gives one structure as it is, several in an array, and none as an empty one."""
    return [found] if isinstance(found, dict) else list(found)


def _mirrored(joint: str) -> str:
    side, _, rest = joint.partition(" ")
    other = {"left": "right", "right": "left"}.get(side)
    return f"{other} {rest}" if other else joint
