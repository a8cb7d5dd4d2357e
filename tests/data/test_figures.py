"""Drawn figures: a function of their index, with their joints where they are drawn."""

from __future__ import annotations

import pytest
import torch

from convnext_study.data import open_data
from convnext_study.data.sources import JOINTS


def test_a_figure_is_a_function_of_its_part_and_index() -> None:
    data, again = (open_data("figures:64,12,4", JOINTS) for _ in range(2))
    assert (len(data.train), len(data.val), data.size, data.num_classes) == (12, 4, 64, 16)
    for one, other in ((data.train, again.train), (data.val, again.val)):
        for mine, its in zip(one.pixels(1), other.pixels(1), strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its))
    assert not torch.equal(data.train.pixels(1)[0], data.val.pixels(1)[0])
    with pytest.raises(IndexError):
        data.val.pixels(4)


def test_joints_are_where_the_figure_is() -> None:
    data = open_data("figures:128,8,1", JOINTS)
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
