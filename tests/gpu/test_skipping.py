"""Networks that skip give on a GPU what the masked dense form gives there."""

from __future__ import annotations

import pytest
import torch
from gpu.device import DEVICE, on_device
from support.anytime_nets import anytime_net, images

from convnext_study.studies.anytime.bench import coherent_mask
from convnext_study.studies.anytime.skipping import skipper
from convnext_study.studies.anytime.skipping.accelerate import accelerated

pytestmark = on_device
SHARES = (0.5, 0.2, 0.1)


@pytest.mark.parametrize("few", [0.0, 1.0])
@pytest.mark.parametrize("heads", ["flex", "original"])
def test_logits_are_those_of_the_dense_form(
    few: float, heads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = anytime_net(masks="confidence", heads=heads).double().to(DEVICE)
    x = images((256, 256), dtype=torch.float64).to(DEVICE)
    monkeypatch.setattr(skipper, "FEW", few)
    fast = accelerated(net)
    with torch.no_grad():
        masks = [coherent_mask(share, (64, 64), len(x)).to(DEVICE) for share in SHARES]
        for given in (masks, []):
            for ours, theirs in zip(fast.run(x, given), net.run(x, given), strict=True):
                torch.testing.assert_close(ours.logits, theirs.logits)


def test_a_network_can_be_made_fast_before_it_is_moved() -> None:
    net = anytime_net(masks="confidence")
    x = images((256, 256))
    with torch.no_grad():
        expected = net(x)
        found = accelerated(net).to(DEVICE)(x.to(DEVICE))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-3)
    answers = list(accelerated(net).to(DEVICE).anytime(x.to(DEVICE)))
    assert all(bool(one.computed.any()) for one in answers)
