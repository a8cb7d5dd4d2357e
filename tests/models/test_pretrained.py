"""The two ends of the road compute what torchvision's and timm's networks compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from support.nets import walk
from torch import Tensor, nn

from convnext_study.models.pretrained.convert import (
    PretrainedError,
    detect,
    from_roadmap,
    load,
    spec_of,
    to_roadmap,
)
from convnext_study.models.pretrained.state_files import State
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import RESNET50, NetSpec

SIZES = ((192, 192), (256, 288), (225, 225))
CLOSE = 1e-5  # of logits of order 1, in float32
Factory = Callable[..., nn.Module]


def _timm(name: str) -> Factory:
    return lambda **kwargs: timm.create_model(name, **kwargs)


FACTORIES: dict[str, Factory] = {
    "torchvision resnet50": torchvision.models.resnet50,
    "timm resnet50": _timm("resnet50"),
    "timm convnext_tiny": _timm("convnext_tiny"),
    "timm convnext_base": _timm("convnext_base"),
}
FEW = ("timm resnet50", "timm convnext_tiny")
RESNETS = [name for name in FACTORIES if "resnet" in name]
END = {
    "resnet50": get_roadmap("t").variants()[0].spec,
    "convnext_tiny": get_roadmap("t").variants()[-1].spec.replace(layer_scale=1e-6),
    "convnext_base": get_roadmap("b").variants()[-1].spec.replace(layer_scale=1e-6),
}


def random_state(make: Callable[[], Any]) -> State:
    """Random values for every tensor of a network: statistics, norms and layer scale too."""
    with torch.device("meta"):
        net = make()
    generator = torch.Generator().manual_seed(0)
    state: State = {}
    for key, tensor in net.state_dict().items():
        value = torch.randn(tensor.shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif key.endswith("running_var") or (key.endswith("weight") and tensor.ndim == 1):
            value = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.ndim > 1:
            value = value / math.sqrt(tensor[0].numel())
        elif not key.endswith("gamma"):
            value = 0.1 * value
        state[key] = value
    return state


def filled(make: Callable[[], Any], state: State) -> Any:
    with torch.device("meta"):  # weights are about to be replaced
        net = make()
    net.load_state_dict(state, assign=True)
    return net.eval()


def images(size: tuple[int, int], chans: int = 3) -> Tensor:
    return torch.randn(1, chans, *size, generator=torch.Generator().manual_seed(1))


def difference(theirs: nn.Module, ours: nn.Module, x: Tensor) -> float:
    with torch.inference_mode():
        a, b = theirs(x), ours(x)
    assert a.std() > 0.1, "logits too small to tell networks apart"
    return float((a - b).abs().max())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights() -> Callable[[str], State]:
    made: dict[str, State] = {}

    def get(name: str) -> State:
        if name not in made:
            made[name] = random_state(FACTORIES[name])
        return made[name]

    return get


def layout_of(name: str) -> str:
    return "resnet" if name in RESNETS else "timm_convnext"


def pair(name: str, state: State, **kwargs: Any) -> tuple[Any, Any]:
    """Their network and ours with the same weights."""
    spec = spec_of(state)
    theirs = filled(lambda: FACTORIES[name](**kwargs), state)
    return theirs, filled(lambda: RoadmapNet(spec, **kwargs), to_roadmap(state, spec))


@pytest.mark.parametrize("name", FACTORIES)
def test_weights_tell_their_layout_and_spec(name: str, weights: Callable[[str], State]) -> None:
    state = weights(name)
    assert detect(state) == layout_of(name)
    assert spec_of(state) == END[name.split()[1]]


@pytest.mark.parametrize("name", FACTORIES)
def test_round_trip_is_identical(name: str, weights: Callable[[str], State]) -> None:
    state = weights(name)
    spec = spec_of(state)
    back = from_roadmap(to_roadmap(state, spec), spec, layout_of(name))
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert back[key].dtype == tensor.dtype
        assert torch.equal(back[key], tensor), key


@pytest.mark.parametrize("name", FACTORIES)
def test_outputs_agree(name: str, weights: Callable[[str], State]) -> None:
    theirs, ours = pair(name, weights(name))
    sizes = SIZES if "base" not in name else ((97, 128),)
    for size in sizes:
        apart = difference(theirs, ours, images(size))
        assert apart == 0.0 if name in RESNETS else apart <= CLOSE, size


@pytest.mark.parametrize("stride", [16, 8])
@walk(("timm resnet50", "timm convnext_tiny", "timm convnext_base"), FEW)
def test_dilation_is_timms(name: str, stride: int, weights: Callable[[str], State]) -> None:
    theirs, ours = pair(name, weights(name), output_stride=stride)
    sizes = SIZES if stride == 16 and "base" not in name else ((65, 96),)
    for size in sizes:
        apart = difference(theirs, ours, images(size))
        assert apart == 0.0 if name in RESNETS else apart <= CLOSE, size


@pytest.mark.parametrize("stride", [32, pytest.param(16, marks=pytest.mark.exhaustive), 8])
@pytest.mark.parametrize("name", FEW)
def test_feature_maps_are_timms(name: str, stride: int, weights: Callable[[str], State]) -> None:
    theirs, ours = pair(name, weights(name), output_stride=stride)
    x = images((65, 96)).double()
    with torch.inference_mode():
        maps = [
            net.double().forward_intermediates(x, indices=4, intermediates_only=True)
            for net in (theirs, ours)
        ]
    assert len(maps[1]) == 4
    for a, b in zip(*maps, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 1e-11  # of values up to 100, in float64


def test_torchvisions_dilation_too(weights: Callable[[str], State]) -> None:
    state = weights("torchvision resnet50")
    dilated = [False, False, True]
    theirs = filled(
        lambda: torchvision.models.resnet50(replace_stride_with_dilation=dilated), state
    )
    ours = filled(lambda: RoadmapNet(RESNET50, output_stride=16), to_roadmap(state, RESNET50))
    assert difference(theirs, ours, images((97, 128))) == 0.0


RELEASED = ("resnet101", "convnext_small", "convnext_large", "convnext_xlarge")


@walk(RELEASED, RELEASED[:2])
def test_every_size_fits_by_its_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
        ours = RoadmapNet(spec := spec_of(theirs.state_dict()))
    layout = detect(theirs.state_dict())
    own = to_roadmap(theirs.state_dict(), spec)
    assert _shapes(own) == _shapes(ours.state_dict())
    assert _shapes(from_roadmap(own, spec, layout)) == _shapes(theirs.state_dict())


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def test_resnet200_agrees() -> None:
    make = _timm("resnet200")
    state = random_state(make)
    spec = spec_of(state)
    assert spec == get_roadmap("b").variants()[0].spec
    ours = filled(lambda: RoadmapNet(spec), to_roadmap(state, spec))
    assert difference(filled(make, state), ours, images((64, 64))) == 0.0


SMALL: dict[str, tuple[NetSpec, Factory]] = {
    "without layer scale": (
        END["convnext_tiny"].replace(depths=(1, 1, 2, 1), width=16, layer_scale=None),
        lambda **kwargs: timm.models.ConvNeXt(
            depths=(1, 1, 2, 1), dims=(16, 32, 64, 128), ls_init_value=None, **kwargs
        ),
    ),
    "1x1 convolutions": (
        END["convnext_tiny"].replace(depths=(1, 1, 2, 1), width=16),
        lambda **kwargs: timm.models.ConvNeXt(
            depths=(1, 1, 2, 1), dims=(16, 32, 64, 128), conv_mlp=True, **kwargs
        ),
    ),
    "V2": (
        END["convnext_tiny"].replace(depths=(1, 1, 2, 1), width=16, layer_scale=None, grn=True),
        lambda **kwargs: timm.models.ConvNeXt(
            depths=(1, 1, 2, 1),
            dims=(16, 32, 64, 128),
            use_grn=True,
            ls_init_value=None,
            **kwargs,
        ),
    ),
    "ResNet": (
        RESNET50.replace(depths=(1, 1, 2, 1)),
        lambda **kwargs: timm.models.ResNet(
            block=timm.models.resnet.Bottleneck, layers=(1, 1, 2, 1), **kwargs
        ),
    ),
}


def test_torchvisions_convnext_and_the_authors_v2() -> None:
    settings = [torchvision.models.convnext.CNBlockConfig(*one) for one in (
        (16, 32, 1), (32, 64, 1), (64, 128, 2), (128, None, 1),
    )]  # fmt: skip
    make = partial(torchvision.models.ConvNeXt, settings, num_classes=10)
    state = random_state(make)
    spec = spec_of(state)
    assert detect(state) == "torchvision_convnext"
    assert spec == SMALL["1x1 convolutions"][0]
    own = to_roadmap(state, spec)
    ours = filled(lambda: RoadmapNet(spec, num_classes=10), own)
    assert difference(filled(make, state), ours, images((65, 96))) <= CLOSE
    back = from_roadmap(own, spec, "torchvision_convnext")
    assert _shapes(back) == _shapes(state)
    # V2 as its authors save it is timm's with other names, and GRN on maps.
    spec, v2 = SMALL["V2"]
    own = to_roadmap(random_state(partial(v2, num_classes=10)), spec)
    theirs = from_roadmap(own, spec, "official_convnext")
    assert theirs["stages.2.1.grn.gamma"].shape == (1, 1, 1, 256)
    assert spec_of(theirs) == spec
    again = to_roadmap(theirs, spec)
    assert all(torch.equal(own[key], tensor) for key, tensor in again.items())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("convnext_atto_ols", "a stem of two convolutions"),
        ("convnext_tiny_hnf", "its last norm before the pooling"),
        ("convnext_large_mlp", "a hidden layer before its classifier"),
    ],
)
def test_a_convnext_that_is_no_end_of_the_road_is_named(name: str, says: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    with pytest.raises(PretrainedError, match=says):
        spec_of(state)


@pytest.mark.parametrize("name", SMALL)
def test_other_classes_and_channels(name: str) -> None:
    spec, make = SMALL[name]
    kwargs: dict[str, Any] = {"num_classes": 10, "in_chans": 1}
    state = random_state(lambda: make(**kwargs))
    assert spec_of(state) == spec
    ours = RoadmapNet(spec, **kwargs).eval()
    load(ours, state)
    assert difference(filled(lambda: make(**kwargs), state), ours, images((48, 64), 1)) <= CLOSE
