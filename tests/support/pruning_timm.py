"""Half of the channels of timm networks, ours beside torch-pruning: the table of docs/pruning.md.

`python tests/support/pruning_timm.py` prints it.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import torch
import torch_pruning

from convnext_study.cost import count
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import kept_of, widths_left
from convnext_study.studies.pruning.plans import fixed_size
from convnext_study.studies.pruning.removal import find_groups, network_of, remove

SIZE = 64
IMAGE = (3, SIZE, SIZE)
NAMES = (
    "resnet18",
    "resnet50",
    "resnetblur18",
    "resnext50_32x4d",
    "seresnext26d_32x4d",
    "resnetv2_50",
    "res2net50_26w_4s",
    "nf_resnet26",
    "regnetx_002",
    "regnety_002",
    "densenet121",
    "vgg16_bn",
    "dla34",
    "cspresnet50",
    "ese_vovnet19b_dw",
    "hgnetv2_b0",
    "repvgg_a0",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "efficientnetv2_rw_t",
    "mixnet_s",
    "ghostnet_100",
    "convnext_atto",
    "convnextv2_atto",
    "poolformer_s12",
    "mobilevit_xxs",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224",
)


@cache
def whole(name: str) -> Any:
    torch.manual_seed(0)
    return network_of(ModelRef(builder="timm", args={"name": name, **fixed_size(name, SIZE)}), 10)


def ours(name: str) -> tuple[int, int, float, float]:
    """Groups that can go, layers left whole, the share of MACs left, the largest difference."""
    net = whole(name)
    groups, left_whole, difference, _ = find_groups(net, IMAGE)
    own = [group for group in groups if group.producers]
    small = remove(net, kept_of(widths_left(own, 0.5), own), IMAGE)
    share = count(small, IMAGE).macs / count(net, IMAGE).macs
    return len(own), len(left_whole), share, difference


def theirs(name: str) -> str:
    """The share that torch-pruning's pruner leaves, asked for half of all but the classifier."""
    net = copy.deepcopy(whole(name)).eval()
    before, x = count(net, IMAGE).macs, torch.randn(1, *IMAGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner: Any = torch_pruning.pruner.BasePruner(
                net,
                x,
                importance=torch_pruning.importance.MagnitudeImportance(p=1),
                pruning_ratio=0.5,
                ignored_layers=[net.get_classifier()],
                in_channel_groups={},
                out_channel_groups={},
            )
            pruner.step()
        net(x)
    except Exception:
        return "fails"
    return f"{count(net, IMAGE).macs / before:.2f}"


def row(name: str) -> str:
    groups, left_whole, share, difference = ours(name)
    exact = "-" if not groups else "below 1e-12" if difference < 1e-12 else f"{difference:.0e}"
    return f"| {name} | {groups} | {left_whole or ''} | {share:.2f} | {exact} | {theirs(name)} |"


if __name__ == "__main__":
    for one in NAMES:
        print(row(one), flush=True)
