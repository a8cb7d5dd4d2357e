"""A small data set in the files of MPII: dots for joints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

JOINTS, WIDTH, HEIGHT = 16, 120, 100
HEAD = (10.0, 12.0, 22.0, 28.0)  # corners of a head's box: its diagonal is 20
Joints = npt.NDArray[np.float64]


def joints_of(person: int) -> Joints:
    """(16, 2), counted from 1, as the annotation has them; all within a circle of 36 pixels."""
    angles = np.linspace(0, 2 * np.pi, JOINTS, endpoint=False) + person / 10
    radii = np.where(np.arange(JOINTS) % 2, 20, 36)
    return np.stack([60 + radii * np.cos(angles), 50 + radii * np.sin(angles)], 1)


def draw(folder: Path, name: str, person: int) -> None:
    """A dot of 7 pixels at each joint, brighter from joint to joint."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for joint, (x, y) in enumerate(joints_of(person) - 1):
        column, row = round(x), round(y)
        pixels[row - 3 : row + 4, column - 3 : column + 4] = 90 + 10 * joint
    Image.fromarray(pixels).convert("RGB").save(folder / name)


def make_split(root: Path, train: int = 8, val: int = 4) -> Path:
    """As HRNet's authors have it. Joint 3 of every person is not labelled."""
    for folder in (root / "images", root / "annot"):
        folder.mkdir(parents=True)
    for part, first, count in (("train", 0, train), ("valid", train, val)):
        people = []
        for person in range(first, first + count):
            draw(root / "images", f"{person}.png", person)
            labelled = np.ones(JOINTS, int)
            labelled[3] = 0
            people.append(
                {
                    "image": f"{person}.png",
                    "joints": joints_of(person).tolist(),
                    "joints_vis": labelled.tolist(),
                    "center": [60.5, 44.5],
                    "scale": 0.4,
                }
            )
        (root / "annot" / f"{part}.json").write_text(json.dumps(people))
    corners = np.array(HEAD).reshape(2, 2, 1).repeat(val, 2)
    savemat(root / "annot" / "gt_valid.mat", {"headboxes_src": corners})
    return root


def _struct(*items: dict[str, Any]) -> npt.NDArray[Any]:
    """Structures of equal fields in an array, as MATLAB has them."""
    found = np.empty(len(items), dtype=[(name, object) for name in items[0]])
    for place, item in enumerate(items):
        found[place] = tuple(item.values())
    return found


def make_whole(root: Path, images: int = 9, first_id: int = 0, **fields: Any) -> Path:
    """As MPII's own authors have it: images of one or two people, and of none, and a test part.

    Ids of joints count from ``first_id``, and people have these ``fields``.
    """
    (root / "images").mkdir(parents=True)
    listed, trained = [], []
    for number in range(images):
        draw(root / "images", f"{number}.png", number)
        points = [
            {"id": first_id + joint, "x": x, "y": y, "is_visible": 1}
            for joint, (x, y) in enumerate(joints_of(number))
            if joint != 3
        ]
        person = {
            **dict(zip(("x1", "y1", "x2", "y2"), HEAD, strict=True)),
            "annopoints": {"point": _struct(*points)},
            "scale": 0.4,
            "objpos": {"x": 60.5, "y": 44.5},
            **fields,
        }
        nobody = {**person, "annopoints": []}
        people = {1: (person, nobody, person), 2: (nobody,)}.get(number, (person,))
        listed.append({"image": {"name": f"{number}.png"}, "annorect": _struct(*people)})
        trained.append(number != images - 1)
    listed.append({"image": {"name": "none.png"}, "annorect": []})
    release = {"annolist": _struct(*listed), "img_train": np.array([*trained, True], int)}
    savemat(root / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    return root
