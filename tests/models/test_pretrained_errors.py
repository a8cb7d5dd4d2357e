"""Weights that do not fit are refused in one line; weight files are read without running code."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.nets import walk
from support.released import SMALL, released

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
from convnext_study.roadmap.spec import NetSpec

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


def test_every_layout_is_tried_here() -> None:
    assert set(ENDS) == set(KEY_MAPS)


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
    assert f"1 of another shape: {misshapen[1]} [5, 5] instead of [" in text


@pytest.mark.parametrize("layout", KEY_MAPS)
def test_truncated_weights_are_refused(layout: str) -> None:
    state, spec = released(layout), ENDS[layout]
    whole = to_roadmap(dict(state), spec)
    assert whole.keys() == RoadmapNet(spec).state_dict().keys()
    half = dict(list(state.items())[: len(state) // 2])
    there = rename(KEY_MAPS[layout], half).values()
    needed = [key for key in whole if key not in there and "num_batches" not in key]
    text = message(lambda: to_roadmap(half, spec))
    assert f"{len(needed)} missing: {', '.join(needed[:8])} and {len(needed) - 8} more" in text


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
    assert "in no known layout" in message(lambda: spec_of(ours))
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
def test_networks_between_the_ends_are_refused(
    layout: str, change: dict[str, Any], named: str
) -> None:
    spec: NetSpec = ENDS[layout].replace(**change)
    assert named in message(lambda: to_roadmap(released(layout), spec))


@pytest.mark.parametrize("layout", KEY_MAPS)
def test_another_number_of_classes(layout: str) -> None:
    state, spec = released(layout, num_classes=21), ENDS[layout]
    net = RoadmapNet(spec, num_classes=10)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    text = message(lambda: load(net, state))
    assert "21 classes" in text
    assert "one of 10" in text
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
    assert "says are averaged" in message(lambda: read_weights(path, "ema"))
    two = {**state, **prefixed("_orig_mod.", state)}
    assert "two weights have one name" in message(lambda: read_state(_saved(path, two)))


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
    assert "save the state dict alone" in text
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists(), "the file was harmless, so nothing was shown"


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    assert "no such file" in message(lambda: read_state(tmp_path / "none.pth"))
    assert "name the file of weights in it" in message(lambda: read_state(tmp_path))
    whole = tmp_path / "whole.pth"
    torch.save(released("resnet"), whole)
    contents = {
        "empty.pth": (b"", "an empty file"),
        "cut.pth": (whole.read_bytes()[:2000], "not readable"),
        "other.pth": (bytes(range(256)) * 9, "another kind of file"),
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
        "no state dict": torch.zeros(2),
        "epoch": {"epoch": 3},
        "it holds optimizer, epoch": {"optimizer": {"state": {}}, "epoch": 3},
        "no state dict of a network": {0: torch.zeros(1)},
    }
    for named, value in saved.items():
        assert named in message(partial(read_state, _saved(whole, value)))
