"""Released weights under timm's tags at both ends of the road; timm's scripts; torch.hub."""

import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from convnext_study.models.registry import RELEASED

ROOT = Path(__file__).parents[2]
X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def saved(name: str, path: Path) -> nn.Module:
    """timm's network with weights of a file, each layer scale large enough to be seen."""
    net: nn.Module = timm.create_model(name).eval()
    for key, weight in net.named_parameters():
        if key.endswith("gamma"):
            nn.init.constant_(weight, 0.3)
    torch.save(net.state_dict(), path)
    return net


@pytest.mark.parametrize(
    ("name", "tag"),
    [("roadmap_t_resnet50", "a1_in1k"), ("roadmap_t_separate_downsampling", "fb_in1k")],
)
def test_an_end_of_the_road_has_the_released_weights(name: str, tag: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    theirs = saved(RELEASED[name].model, path)
    made: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    ours = timm.create_model(f"{name}.{tag}", **made).eval()
    torch.testing.assert_close(ours(X), theirs(X), rtol=0, atol=1e-5)
    assert ours.pretrained_cfg["hf_hub_id"] == f"timm/{RELEASED[name].model}.{tag}"
    other = timm.create_model(f"{name}.{tag}", num_classes=7, in_chans=1, **made).eval()
    assert other(X[:, :1]).shape == (1, 7)
    maps = timm.create_model(f"{name}.{tag}", features_only=True, **made).eval()(X)
    torch.testing.assert_close(maps[-1], ours.forward_features(X), rtol=0, atol=1e-4)


def test_the_default_tag_and_what_has_no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def built(make: object, name: str, pretrained: bool, **options: Any) -> nn.Module:
        seen.append({"pretrained": pretrained, **options})
        return nn.Identity()

    monkeypatch.setattr("timm.models._builder.build_model_with_cfg", built)
    for name, released in RELEASED.items():
        assert released.tag in released.cfgs()
        assert f"{name}.{released.tag}" in timm.list_models(name + ".*", pretrained=True)
        timm.create_model(name, pretrained=True)
        assert seen[-1]["pretrained_cfg"] == released.tag
        timm.create_model(name)  # described as a network without weights
        assert not seen[-1].get("pretrained_cfg")
        assert timm.get_pretrained_cfg(name).url is None


def test_torch_hub_has_every_name() -> None:
    net = torch.hub.load(str(ROOT), "roadmap_nano_gelu", source="local", num_classes=3)
    assert net(X).shape == (1, 3)
    assert set(timm.list_models("roadmap_*")) <= run_path(str(ROOT / "hubconf.py")).keys()


def test_timms_scripts_know_our_networks(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("ENDING = 'gelu'\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, timm, beside\n"
        "if __name__ == '__main__':\n"
        "    print(timm.is_model(sys.argv[1] + beside.ENDING), sys.argv[0] == __file__)\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "convnext_study", "timm", *words]
        return subprocess.run(command, capture_output=True, text=True)

    assert run(str(script), "roadmap_nano_").stdout == "True True\n"
    for words in ([], ["nothing.py"]):
        done = run(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
