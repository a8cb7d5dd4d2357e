"""Weights of others: both ends of the road compute the same, and what does not fit is refused."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.nets import walk
from support.released import CONVNEXT, SMALL, Factory, as_authors, random_state, released
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor, nn

from convnext_study.models.pretrained.convert import (
    KEY_MAPS,
    PretrainedError,
    detect,
    load,
    spec_of,
    to_roadmap,
)
from convnext_study.models.pretrained.key_maps import rename
from convnext_study.models.pretrained.state_files import State, read_weights
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import NetSpec

SIZES = ((192, 192), (256, 288), (225, 225))
CLOSE = 1e-5  # of logits of order 1, in float32


FACTORIES: dict[str, Factory] = {
    "torchvision resnet50": torchvision.models.resnet50,
    **{
        f"timm {name}": partial(timm.create_model, name)
        for name in ("resnet50", "resnet200", "convnext_tiny", "convnext_base")
    },
}

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


@pytest.mark.parametrize("name", FACTORIES)
def test_outputs_agree(name: str) -> None:
    state = random_state(FACTORIES[name])
    spec = spec_of(state)
    assert detect(state) == ("resnet" if "resnet" in name else "timm_convnext")
    assert spec == END[name.split()[1]]
    theirs = filled(FACTORIES[name], state)
    ours = filled(lambda: RoadmapNet(spec), to_roadmap(state, spec))
    few = {"timm resnet200": (64, 64), "timm convnext_base": (97, 128)}
    for size in (few[name],) if name in few else SIZES:
        apart = difference(theirs, ours, images(size))
        assert apart == 0.0 if "resnet" in name else apart <= CLOSE, size


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
        ("convnext_atto_ols", "a two-convolution stem"),
        ("convnext_tiny_hnf", "its last norm before the pooling"),
        ("convnext_large_mlp", "a hidden layer before its classifier"),
    ],
)
def test_a_convnext_that_is_no_end_of_the_road_is_named(name: str, says: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    with pytest.raises(PretrainedError, match=says):
        spec_of(state)


ENDS = {"official_convnext": SMALL["timm_convnext"][0]}
ENDS |= {layout: SMALL[layout][0] for layout in KEY_MAPS if layout in SMALL}

HEADS = {layout: KEY_MAPS[layout].names["head.fc"] + "." for layout in KEY_MAPS}


def read_state(path: Path) -> State:
    return read_weights(path).state


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(PretrainedError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("layout", KEY_MAPS)
def test_all_that_does_not_fit_is_listed(layout: str) -> None:
    state, spec = released(layout), ENDS[layout]
    missing, misshapen = rename(KEY_MAPS[layout], [next(iter(state)), list(state)[6]]).items()
    del state[missing[0]]
    state[misshapen[0]] = torch.zeros(5, 5)
    state["strange.weight"] = torch.zeros(1)
    text = message(lambda: to_roadmap(state, spec))
    assert f"1 missing: {missing[1]}" in text
    assert "1 unexpected: strange.weight" in text
    assert f"1 with another shape: {misshapen[1]} [5, 5] instead of [" in text


@walk(KEY_MAPS, ("resnet", "timm_convnext"))
def test_every_single_tensor_is_needed_and_every_shape_checked(name: str) -> None:
    state, spec = released(name), ENDS[name]
    for key, ours in rename(KEY_MAPS[name], state).items():
        if key.endswith("num_batches_tracked"):
            continue
        rest = {one: tensor for one, tensor in state.items() if one != key}
        assert ours in message(partial(to_roadmap, rest, spec))
        wrong = {**state, key: state[key][:-1]}
        assert ours.partition(".fc.")[0] in message(partial(to_roadmap, wrong, spec))


def test_foreign_weights_are_refused() -> None:
    text = message(lambda: detect({"cls_token": torch.zeros(1), "pos_embed": torch.zeros(1)}))
    assert "cls_token, pos_embed" in text
    assert all(layout in text for layout in KEY_MAPS)
    # Ours are in none of them: those of a step between the ends would pass for a ResNet's.
    ours = RoadmapNet(ENDS["timm_convnext"]).state_dict()
    assert "have no known layout" in message(lambda: spec_of(ours))
    no_stem = released("resnet")
    del no_stem["conv1.weight"]
    assert "they have no stem" in message(lambda: spec_of(no_stem))


@pytest.mark.parametrize(
    ("layout", "change", "named"),
    [
        ("resnet", {"depthwise": True}, "depthwise is True, not False"),
        ("resnet", {"layer_scale": 1e-6}, "layer_scale is 1e-06, not None"),
        ("timm_convnext", {"kernel": 9}, "kernel is 9, not 7"),
        ("official_convnext", {"norm": "batch"}, "norm is 'batch', not 'layer'"),
        ("timm_convnext", {"stem_stride": 2}, "stem_stride is 2, not 4"),
    ],
)
def test_networks_between_the_ends(layout: str, change: dict[str, Any], named: str) -> None:
    spec: NetSpec = ENDS[layout].replace(**change)
    assert named in message(lambda: to_roadmap(released(layout), spec))


@pytest.mark.parametrize("layout", KEY_MAPS)
def test_another_number_of_classes(layout: str) -> None:
    state, spec = released(layout, num_classes=21), ENDS[layout]
    net = RoadmapNet(spec, num_classes=10)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    text = message(lambda: load(net, state))
    assert "21 classes" in text
    assert "the network has 10" in text
    assert all(torch.equal(before[key], now) for key, now in net.state_dict().items())
    bare = RoadmapNet(spec, num_classes=0)
    load(bare, state)
    expected = to_roadmap(state, spec)
    assert all(torch.equal(expected[key], now) for key, now in bare.state_dict().items())
    headless = {key: state[key] for key in state if not key.startswith(HEADS[layout])}
    assert "2 missing" in message(lambda: to_roadmap(headless, spec))


def test_old_batch_norm_counts_no_batches() -> None:
    state = released("resnet")
    old = {key: tensor for key, tensor in state.items() if "num_batches" not in key}
    assert len(old) < len(state)
    own = to_roadmap(old, spec_of(old))
    counts = {key: tensor for key, tensor in own.items() if "num_batches" in key}
    assert len(counts) == len(state) - len(old)
    assert all(count == 0 and count.dtype == torch.long for count in counts.values())
    RoadmapNet(spec_of(old), num_classes=10).load_state_dict(own)


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("save", [save_file, torch.save])
def test_weight_files(save: Callable[..., Any], suffix: str, tmp_path: Path) -> None:
    state = released("resnet")
    save(state, tmp_path / f"w[1].{suffix}")
    assert same(read_state(tmp_path / f"w[1].{suffix}"), state)


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def averaged(state: State) -> State:
    """As torch's `AveragedModel` saves it."""
    return {"n_averaged": torch.tensor(3), **prefixed("module.", state)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": prefixed("module.", state), "args": Namespace(lr=1e-3)},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"module": prefixed("_orig_mod.module.", state)},
        lambda state: prefixed("module._orig_mod.module.", state),
        lambda state: {key.replace("layer1.", "layer1._orig_mod."): state[key] for key in state},
        lambda state: {"model_ema": averaged(state)},
        lambda state: {"model_ema": prefixed("module.", averaged(prefixed("module.", state)))},
        lambda state: {"state_dict_ema": {"model": prefixed("_orig_mod.", state)}},
        lambda state: averaged(prefixed("_orig_mod.", state)),
    ],
)
def test_what_savers_wrap_around_weights(wrap: Callable[[State], Any], tmp_path: Path) -> None:
    state = released("resnet")
    torch.save(wrap(state), tmp_path / "w.pth")
    assert same(read_state(tmp_path / "w.pth"), state)


@pytest.mark.parametrize(
    ("keys", "legacy"),
    [
        (("state_dict", "state_dict_ema"), False),  # timm's train.py
        (("model", "model_ema"), False),  # the ConvNeXt authors' main.py
        (("model", "model_ema"), True),  # before torch 1.6
    ],
)
def test_of_raw_and_averaged_weights(keys: tuple[str, str], legacy: bool, tmp_path: Path) -> None:
    state, path = released("timm_convnext"), tmp_path / "checkpoint.pth.tar"
    raw = {key: tensor + 1 for key, tensor in state.items()}
    content = {keys[0]: raw, keys[1]: state, "epoch": 3, "args": Namespace(model="it", lr=1e-3)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for kind, expected in ((None, state), ("ema", state), ("raw", raw)):
        read = read_weights(path, kind)  # type: ignore[arg-type]
        assert same(read.state, expected)
        assert read.kind == (kind or "ema")
        assert {read.key, read.others} == set(keys)
        assert read.key == keys[expected is state]


def test_weights_of_one_kind_are_not_the_other(tmp_path: Path) -> None:
    path, state = tmp_path / "w.pth", released("resnet")
    assert read_weights(_saved(path, {"model_ema": state})).kind == "ema"
    assert "no raw ones" in message(lambda: read_weights(path, "raw"))
    assert "no raw ones" in message(lambda: read_weights(_saved(path, averaged(state)), "raw"))
    assert read_weights(_saved(path, {"model": state}), "raw").kind is None
    assert "marked as averaged" in message(lambda: read_weights(path, "ema"))
    two = {**state, **prefixed("_orig_mod.", state)}
    assert "two weights have the same name" in message(lambda: read_state(_saved(path, two)))


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


class MakesFolder:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_file_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    path, folder = tmp_path / "w.pth", tmp_path / "made"
    torch.save({"model": released("resnet"), "args": MakesFolder(folder)}, path)
    text = message(lambda: read_state(path))
    assert str(path) in text
    assert "save only the state dict" in text
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists(), "the file was harmless, so nothing was shown"


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    assert "no such file" in message(lambda: read_state(tmp_path / "none.pth"))
    assert "name the weight file in it" in message(lambda: read_state(tmp_path))
    whole = tmp_path / "whole.pth"
    torch.save(released("resnet"), whole)
    contents = {
        "empty.pth": (b"", "an empty file"),
        "cut.pth": (whole.read_bytes()[:2000], "cannot be read"),
        "other.pth": (bytes(range(256)) * 9, "contains more than weights"),
        "text.pth": (b"hello", "a text file"),
        "accents.bin": ("é".encode() * 600, "a text file"),  # cut in the middle of one
        "text.safetensors": (b"hello", "a text file"),
        "page.pth": (b"\n<!DOCTYPE html><html>", "<!DOCTYPE html>"),
    }
    for name, (content, says) in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert message(partial(read_state, path)).startswith(f"{path}: ")
        assert says in message(partial(read_state, path))
    saved: dict[str, Any] = {
        "not a state dict": torch.zeros(2),
        "epoch": {"epoch": 3},
        "it holds optimizer, epoch": {"optimizer": {"state": {}}, "epoch": 3},
        "not the state dict of a network": {0: torch.zeros(1)},
    }
    for named, value in saved.items():
        assert named in message(partial(read_state, _saved(whole, value)))
