"""The two ends of the road compute what torchvision's and timm's networks compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
from support.nets import walk
from support.released import CONVNEXT, SMALL, Factory, as_authors, random_state
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor, nn

from convnext_study.models.pretrained.convert import (
    PretrainedError,
    detect,
    load,
    spec_of,
    to_roadmap,
)
from convnext_study.models.pretrained.state_files import State
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import RESNET50

SIZES = ((192, 192), (256, 288), (225, 225))
CLOSE = 1e-5  # of logits of order 1, in float32


def _timm(name: str) -> Factory:
    return lambda **kwargs: timm.create_model(name, **kwargs)


FACTORIES: dict[str, Factory] = {
    "torchvision resnet50": torchvision.models.resnet50,
    **{
        f"timm {name}": _timm(name)
        for name in ("resnet50", "resnet200", "convnext_tiny", "convnext_base")
    },
}
FEW = ("timm resnet50", "timm convnext_tiny")
T, B = (get_roadmap(regime).variants() for regime in "tb")
END = {
    "resnet50": T[0].spec,
    "resnet200": B[0].spec,
    "convnext_tiny": CONVNEXT,
    "convnext_base": B[-1].spec.replace(layer_scale=1e-6),
}


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


def pair(name: str, state: State, **kwargs: Any) -> tuple[Any, Any]:
    """Their network and ours with the same weights."""
    spec = spec_of(state)
    theirs = filled(lambda: FACTORIES[name](**kwargs), state)
    return theirs, filled(lambda: RoadmapNet(spec, **kwargs), to_roadmap(state, spec))


def check_logits(name: str, theirs: Any, ours: Any, sizes: Any) -> None:
    for size in sizes:
        apart = difference(theirs, ours, images(size))
        assert apart == 0.0 if "resnet" in name else apart <= CLOSE, size


@pytest.mark.parametrize("name", FACTORIES)
def test_outputs_agree(name: str, weights: Callable[[str], State]) -> None:
    state = weights(name)
    assert detect(state) == ("resnet" if "resnet" in name else "timm_convnext")
    assert spec_of(state) == END[name.split()[1]]
    few = {"timm resnet200": (64, 64), "timm convnext_base": (97, 128)}
    check_logits(name, *pair(name, state), (few[name],) if name in few else SIZES)


@pytest.mark.parametrize("stride", [16, 8])
@walk(("timm resnet50", "timm convnext_tiny", "timm convnext_base"), FEW)
def test_dilation_is_timms(name: str, stride: int, weights: Callable[[str], State]) -> None:
    sizes = SIZES if stride == 16 and "base" not in name else ((65, 96),)
    check_logits(name, *pair(name, weights(name), output_stride=stride), sizes)


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
        theirs = timm.create_model(name).state_dict()
        ours = RoadmapNet(spec := spec_of(theirs)).state_dict()
    own = to_roadmap(theirs, spec)
    assert {key: one.shape for key, one in own.items()} == {k: one.shape for k, one in ours.items()}


@pytest.mark.parametrize("name", SMALL)
def test_other_classes_and_channels(name: str) -> None:
    spec, make = SMALL[name]
    kwargs: dict[str, Any] = {"num_classes": 10}
    if "torchvision" not in name:
        kwargs["in_chans"] = 1
    state = random_state(lambda: make(**kwargs))
    assert detect(state) == name.split()[0]
    assert spec_of(state) == spec
    ours = RoadmapNet(spec, **kwargs).eval()
    load(ours, state)
    x = images((65, 96), ours.in_chans)
    assert difference(filled(lambda: make(**kwargs), state), ours, x) <= CLOSE


@pytest.mark.parametrize("name", ["timm_convnext", "timm_convnext V2"])
def test_the_authors_weights_are_read_as_timm_reads_them(name: str) -> None:
    """timm's own function says what their names and shapes mean; a file may wrap them."""
    spec, make = SMALL[name]
    state = random_state(make)
    authors = as_authors(state)
    timms = checkpoint_filter_fn({"model": authors}, make())
    assert timms.keys() == state.keys()
    assert all(torch.equal(timms[key].flatten(), state[key].flatten()) for key in state)
    assert (detect(authors), spec_of({"model": authors})) == ("official_convnext", spec)
    own, expected = to_roadmap({"model": authors}, spec), to_roadmap(state, spec)
    assert all(torch.equal(own[key], tensor) for key, tensor in expected.items())


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
