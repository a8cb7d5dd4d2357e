"""People with joints: MPII's annotation in both its forms, drawn figures, people cut out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from support.images import refused
from support.mpii import HEAD, joints_of, make_split, make_whole
from torch import Tensor

from convnext_study.data import open_data, sources
from convnext_study.data.dataset import CorruptImage
from convnext_study.data.sources.mpii import JOINTS
from convnext_study.data.transforms.joint import CropPerson, PersonCrop
from convnext_study.errors import UserError

HEAD_SIZE = 0.6 * math.hypot(HEAD[2] - HEAD[0], HEAD[3] - HEAD[1])


def person(part: Any, index: int) -> tuple[Tensor, Tensor]:
    """An image and the rows of a person in it."""
    found: tuple[Tensor, Tensor] = part.pixels(index)
    return found


def test_the_files_of_hrnets_authors(tmp_path: Path) -> None:
    data = open_data(f"mpii:{make_split(tmp_path)}")
    assert (len(data.train), len(data.val), data.classes) == (8, 4, JOINTS)
    image, rows = person(data.val, 0)
    assert image.shape == (3, 100, 120) and rows.shape == (17, 4)
    places = torch.as_tensor(joints_of(8), dtype=torch.float32) - 0.5
    assert torch.allclose(rows[:-1, :2], places)
    assert rows[:-1, 2].tolist() == [float(joint != 3) for joint in range(16)]
    # HRNet: the centre 15 scales lower, and 200 * 1.25 pixels at scale 1.
    assert rows[-1].tolist() == pytest.approx([60, 44 + 15 * 0.4, 250 * 0.4, HEAD_SIZE])
    assert person(data.train, 0)[1][-1, 3].isnan()


def test_the_file_of_mpiis_authors(tmp_path: Path) -> None:
    """Image 2 shows nobody with joints, the last one is of the test part, one holds nobody."""
    data = open_data(f"mpii:{make_whole(tmp_path)}")
    assert (len(data.train), len(data.val)) == (7, 1)
    train: Any = data.train
    assert train.groups().tolist() == [0, 0, 1, 2, 3, 4, 5]  # two people in image 1
    split = open_data(f"mpii:{make_split(tmp_path / 'split')}")
    _, rows = person(data.val, 0)
    expected = person(split.train, 0)[1]
    assert torch.allclose(rows[3, :3], torch.zeros(3))
    rows[3, :2] = expected[3, :2]
    assert torch.allclose(rows[:-1], expected[:-1])
    assert rows[-1].tolist() == pytest.approx([*expected[-1, :3].tolist(), HEAD_SIZE])


def test_left_and_right_change_sides_in_a_mirror(tmp_path: Path) -> None:
    data = open_data(f"mpii:{make_split(tmp_path)}")
    pairs = {(one, other) for one, other in enumerate(data.mirrored) if one < other}
    assert pairs == {(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)}  # HRNet's
    assert [JOINTS[joint] for joint in range(16) if joint not in data.measured] == [
        "pelvis",
        "thorax",
    ]


@pytest.mark.parametrize("seed", range(4))
def test_joints_stay_on_their_dots(tmp_path: Path, seed: int) -> None:
    data = open_data(f"mpii:{make_split(tmp_path)}")
    image, rows = person(data.train, seed % 8)
    torch.manual_seed(seed)
    cut, found, _ = CropPerson(PersonCrop(128), data.mirrored, draws=True)(image, rows)
    assert cut.shape == (3, 128, 128) and cut.dtype == torch.uint8
    # In a mirror image a joint's dot is the one of its other side.
    plain = [90 + 10 * joint for joint in range(16)]
    other = [90 + 10 * joint for joint in data.mirrored]
    inside = ((found[:-1, :2] > 2) & (found[:-1, :2] < 126)).all(1)
    assert inside.sum() > 8
    x, y = found[:-1, :2].floor().long().clamp(0, 127).unbind(1)
    seen = cut[0, y, x].float()
    off = [(seen - torch.tensor(one))[inside].abs().max() for one in (plain, other)]
    assert min(off) <= 1


def test_what_is_drawn(tmp_path: Path) -> None:
    data = open_data(f"mpii:{make_split(tmp_path)}")
    pair = person(data.train, 0)
    factors, angles, mirrored = set(), [], 0
    for seed in range(200):
        torch.manual_seed(seed)
        _, found, _ = CropPerson(PersonCrop(64), data.mirrored, draws=True)(*pair)
        factors.add(64 / float(found[-1, 2]))
        if _is_mirrored(found):
            mirrored += 1
        else:
            before, after = ((rows[7] - rows[6])[:2] for rows in (pair[1], found))
            cross = float(before[0] * after[1] - before[1] * after[0])
            angles.append(math.degrees(math.atan2(cross, float(before @ after))))
    assert pytest.approx(min(factors)) == 0.75
    assert pytest.approx(max(factors)) == 1.25
    assert len(factors) > 100
    assert 60 < mirrored < 140
    still = sum(abs(angle) < 1e-3 for angle in angles) / len(angles)
    assert 0.25 < still < 0.55
    assert -60.1 < min(angles) < -20 < 20 < max(angles) < 60.1


def _is_mirrored(rows: Tensor) -> bool:
    """Whether the joints, which go round clockwise in the image, go the other way."""
    one, other = (rows[joint, :2] - rows[-1, :2] for joint in (6, 7))
    return bool(one[0] * other[1] - one[1] * other[0] < 0)


def test_without_draws_a_person_is_cut_as_it_is(tmp_path: Path) -> None:
    data = open_data(f"mpii:{make_split(tmp_path)}")
    image, rows = person(data.val, 0)
    cut, found, _ = CropPerson(PersonCrop(100), data.mirrored, draws=False)(image, rows)
    # The square of 100 pixels around (60, 50) begins at (10, 0).
    assert torch.equal(cut, image[:, :, 10:110])
    assert torch.allclose(found[:-1, 0], rows[:-1, 0] - 10)
    assert found[-1].tolist() == pytest.approx([50, 50, 100, HEAD_SIZE])


def test_a_missing_image_is_one_line_or_skipped(tmp_path: Path) -> None:
    (make_split(tmp_path) / "images" / "1.png").unlink()
    with pytest.raises(
        CorruptImage, match=r"images/1\.png: is named in the annotation, but missing"
    ):
        open_data(f"mpii:{tmp_path}")
    data = open_data(f"mpii:{tmp_path}", corrupt_images="skip")
    with pytest.raises(CorruptImage):
        person(data.train, 1)


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    refused(f"mpii:{tmp_path}", "images: no such folder")
    (tmp_path / "images").mkdir()
    refused(f"mpii:{tmp_path}", r"needs mpii_human_pose_v1_u12_1\.mat, or annot/train")
    (tmp_path / "mpii_human_pose_v1_u12_1.mat").write_bytes(b"no")
    refused(f"mpii:{tmp_path}", "not an MPII annotation")


def change_people(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the people of an annotation."""
    people = json.loads(path.read_text())
    change(people)
    path.write_text(json.dumps(people))


def test_an_annotation_without_a_field_is_one_line(tmp_path: Path) -> None:
    path = make_split(tmp_path) / "annot" / "train.json"
    change_people(path, lambda people: people[2].pop("scale"))
    refused(f"mpii:{tmp_path}", r"train\.json.*not an MPII annotation \('scale'\)")


NAN = float("nan")
PLACES = joints_of(0).tolist()
BAD_PEOPLE: dict[str, tuple[dict[str, Any], str]] = {
    "centre of no number": ({"center": [NAN, 44.5]}, "the centre is at nan, 44.5, which is not a"),
    "centre that is not known": ({"center": [-1, -1]}, "the centre is at -1, -1"),
    "scale 0": ({"scale": 0}, "the scale is 0, which makes a square of 0 pixels"),
    "scale of no number": ({"scale": NAN}, "the scale is nan"),
    "endless scale": ({"scale": float("inf")}, "the scale is inf"),
    "joint of no number": (
        {"joints": [*PLACES[:2], [NAN, 3], *PLACES[3:]]},
        r"joint 2 \(right hip\) is at nan, 2.5, which is not a valid",
    ),
    "17 joints": ({"joints": [*PLACES, [1, 1]], "joints_vis": [1] * 17}, "has 17 joints"),
    "17 marks": ({"joints_vis": [1] * 17}, "16 joints and 17 visibility flags"),
    "a word": ({"joints": "none"}, "not an MPII annotation"),
}


@pytest.mark.parametrize("case", BAD_PEOPLE)
@pytest.mark.parametrize("file", ["train.json", "valid.json"])
def test_people_who_are_in_no_place(tmp_path: Path, case: str, file: str) -> None:
    fields, says = BAD_PEOPLE[case]
    path = make_split(tmp_path) / "annot" / file
    change_people(path, lambda people: people[1].update(fields))
    message = refused(f"mpii:{tmp_path}", says, corrupt_images="skip")
    assert message.startswith(f"{path}: person 1")


WHOLE: dict[str, tuple[dict[str, Any], str]] = {
    "scale": ({"scale": 0.0}, r"v1_u12_1\.mat: 0\.png: the scale is 0"),
    "centre": ({"objpos": {"x": NAN, "y": 1}}, r"\.mat: 0\.png: the centre is at nan"),
    "17 joints": ({"first_id": 1}, r"\.mat: 0\.png: a joint has the id 16"),
    "joint below 0": ({"first_id": -1}, r"\.mat: 0\.png: a joint has the id -1"),
    "head": ({"x2": HEAD[0], "y2": HEAD[1]}, r"\.mat: 0\.png: has a head of 0 pixels"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_same_in_the_file_of_mpiis_authors(tmp_path: Path, case: str) -> None:
    fields, says = WHOLE[case]
    refused(f"mpii:{make_whole(tmp_path, **fields)}", says)


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        (np.zeros((2, 2, 4)), r"gt_valid\.mat: person 0 \(8\.png\): has a head of 0 pixels"),
        (np.full((2, 2, 4), np.nan), r"gt_valid\.mat: person 0 .*a head of nan"),
        (np.zeros((2, 2, 3)), r"gt_valid\.mat: has 3 heads, but .*valid\.json has 4 people"),
        (np.zeros(4), r"gt_valid\.mat: not an MPII annotation|holds 1 heads"),
    ],
)
def test_heads_that_measure_nothing(tmp_path: Path, heads: Any, says: str) -> None:
    make_split(tmp_path)
    savemat(tmp_path / "annot" / "gt_valid.mat", {"headboxes_src": heads})
    refused(f"mpii:{tmp_path}", says)


@pytest.mark.parametrize(
    ("file", "labelled", "says"),
    [
        ("train.json", (), "for train has no person with a labelled joint.*nothing to learn from"),
        (
            "valid.json",
            (6, 7),
            "for val has no person with a labelled joint that counts.*nothing to measure",
        ),
    ],
)
def test_nobody_with_a_joint_that_counts(
    tmp_path: Path, file: str, labelled: tuple[int, ...], says: str
) -> None:
    marks = {"joints_vis": [int(joint in labelled) for joint in range(16)]}
    change_people(
        make_split(tmp_path) / "annot" / file,
        lambda people: [person.update(marks) for person in people],
    )
    refused(f"mpii:{tmp_path}", says)


def test_a_person_outside_of_the_image(tmp_path: Path) -> None:
    path = make_split(tmp_path) / "annot" / "train.json"
    change_people(path, lambda people: people[1].update(center=[500, 44.5]))
    data = open_data(f"mpii:{tmp_path}")
    person(data.train, 0)
    with pytest.raises(CorruptImage, match=r"1\.png: has 120x100 pixels.*around 499\.5, 50"):
        person(data.train, 1)
    with pytest.raises(UserError, match="size 0"):
        PersonCrop(0)


def test_a_figure_is_a_function_of_its_part_and_index() -> None:
    data, again = (open_data("figures:64,12,4", sources.JOINTS) for _ in range(2))
    assert (len(data.train), len(data.val), data.size, data.num_classes) == (12, 4, 64, 16)
    for one, other in ((data.train, again.train), (data.val, again.val)):
        for mine, its in zip(one.pixels(1), other.pixels(1), strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its))
    assert not torch.equal(data.train.pixels(1)[0], data.val.pixels(1)[0])
    with pytest.raises(IndexError):
        data.val.pixels(4)


def test_joints_are_where_the_figure_is() -> None:
    data = open_data("figures:128,8,1", sources.JOINTS)
    names = data.classes
    for index in range(8):
        image, rows = (torch.as_tensor(one) for one in data.train.pixels(index))
        assert rows.shape == (17, 4)
        assert rows[-1].tolist()[:3] == [64, 64, 128] and rows[-1, 3] > 0
        places = rows[:-1, :2]
        assert (rows[:-1, 2] == 1).all() and ((places >= 0) & (places < 128)).all()
        colour = image[:, int(places[names.index("head"), 1]), int(places[names.index("head"), 0])]
        for joint in ("left wrist", "right ankle", "thorax"):
            x, y = places[names.index(joint)].int().tolist()
            assert (image[:, y, x].float() - colour.float()).abs().mean() < 50  # of its noise
        head = rows[names.index("head"), 1]
        assert head < rows[names.index("pelvis"), 1] < rows[names.index("left ankle"), 1] + 64
    assert [names[other] for other in data.mirrored[:2]] == ["left ankle", "left knee"]
    assert len(data.measured) == 14
