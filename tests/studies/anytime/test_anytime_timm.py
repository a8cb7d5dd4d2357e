"""The anytime networks in timm: by name, with keywords, as far as the contract makes sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from support.anytime_nets import images

from convnext_study.models.registry import VARIANTS
from convnext_study.studies.anytime.masks import MaskedConv2d
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.registry import MODELS


def test_every_road_map_step_has_an_anytime_form() -> None:
    assert {f"anytime_{name}" for name in VARIANTS} <= set(MODELS)


def test_lists_of_classifiers_do_not_have_them() -> None:
    assert all(timm.is_model(name) for name in MODELS)
    assert not set(MODELS) & set(timm.list_models()) and timm.list_models("roadmap_nano_*")
    assert not set(MODELS) & set(timm.list_models(module="registry"))


def test_names_and_keywords_build_networks() -> None:
    net = timm.create_model("anytime_hrnet_digits", num_classes=7, in_chans=1, threshold=0.5)
    assert isinstance(net, AnytimeNet)
    assert net.threshold == 0.5
    assert [tuple(one.shape) for one in net(images()[:, :1])] == [(2, 7, 16, 16)] * 4
    plain = timm.create_model("anytime_hrnet_digits", exits=(4,), masks="none")
    assert len(plain(images())) == 1
    assert plain.num_classes == plain.default_cfg["num_classes"] == 11
    with pytest.raises(TypeError, match="heads"):
        timm.create_model("anytime_hrnet_digits", head="flex")


@pytest.mark.parametrize(
    "name",
    [
        "anytime_hrnet_digits",
        "anytime_convnext_atto",
        "anytime_resnet18",
        "anytime_roadmap_nano_gelu",
    ],
)
def test_descriptions_name_layers_that_are_there(name: str) -> None:
    with torch.device("meta"):
        net = timm.create_model(name)
    names = [net.default_cfg["first_conv"], *net.default_cfg["classifier"]]
    assert all(isinstance(net.get_submodule(one), torch.nn.Conv2d) for one in names)
    assert [net.get_submodule(one) for one in names[1:]] == net.get_classifier()


def test_a_checkpoint_loads_and_the_classifier_can_be_reset(tmp_path: Path) -> None:
    net = timm.create_model("anytime_hrnet_digits").eval()
    torch.save({"model": net.state_dict()}, tmp_path / "net.pth")
    twin = timm.create_model("anytime_hrnet_digits", checkpoint_path=str(tmp_path / "net.pth"))
    assert all(
        torch.equal(*pair) for pair in zip(net(images()), twin.eval()(images()), strict=True)
    )
    net.reset_classifier(3)
    assert [one.shape[1] for one in net(images())] == [3] * 4
    later = net.get_classifier()[1:]
    assert all(isinstance(one, MaskedConv2d) for one in later)
