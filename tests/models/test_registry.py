"""Registration with timm in any order of imports, released weights, timm's scripts, torch.hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import convnext_study
from convnext_study.models import registry, timm_hook
from convnext_study.models.registry import RELEASED, VARIANTS
from convnext_study.roadmap import ROADMAPS
from convnext_study.roadmap.spec import SpecError

ROWS = {variant.model for road in ROADMAPS.values() for variant in road.variants()}
# Of the road maps and the studies together.
ALL = len(timm_hook.all_models())


def python(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, with a folder of other packages in front if one is given."""
    environment = {**os.environ, "PYTHONPATH": str(path) if path else "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def printed(code: str, *, path: Path | None = None) -> Any:
    done = python(code, path=path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


# A timm that imports in milliseconds, with the parts that registration touches.
FAKE_TIMM = {
    "timm/__init__.py": "from timm import layers, models",
    "timm/layers.py": "import os, sys\nif 'EARLY' in os.environ: import convnext_study",
    "timm/data/__init__.py": "",
    "timm/data/constants.py": "IMAGENET_DEFAULT_MEAN = IMAGENET_DEFAULT_STD = (0.5,) * 3",
    "timm/models/__init__.py": "import time; time.sleep(0.05); from timm.models import _registry",
    "timm/models/_registry.py": """
        from collections import deque
        from types import SimpleNamespace

        MODELS, _deprecated_models = [], {}
        def get_pretrained_cfg(name):
            return None
        def list_models(*_, **__):
            return []
        def generate_default_cfgs(cfgs):
            return {name: SimpleNamespace(tags=deque([""])) for name in cfgs}
        def register_model(fn):
            MODELS.append(fn.__name__)
            return fn
    """,
}


@pytest.fixture(scope="module")
def fake_timm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fake")
    for name, text in FAKE_TIMM.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def test_every_row_is_registered_once() -> None:
    assert len(ROWS) == 48
    assert set(timm.list_models("roadmap_*", module="registry")) == ROWS
    released = timm.list_models("roadmap_*", pretrained=True)
    assert {name.partition(".")[0] for name in released} == {*registry.RELEASED}


@pytest.mark.parametrize(
    "first",
    [
        "import convnext_study, timm",
        "import timm, convnext_study",
        "import convnext_study, timm.layers",
        "import timm.layers, convnext_study",
        "import convnext_study.models.registry, timm",
        "import os; os.environ['EARLY'] = '1'; import timm",  # from inside a half-imported timm
        # Asking must not spend the hook.
        "import convnext_study, importlib.util as util; util.find_spec('timm'); import timm",
    ],
)
def test_order_of_imports(first: str, fake_timm: Path) -> None:
    code = f"""
        {first}
        import json, sys
        from timm.models import _registry
        real = type(sys.modules["timm.models"].__spec__.loader).__name__
        left = [one for one in sys.meta_path if "convnext" in type(one).__module__]
        print(json.dumps([len(_registry.MODELS), len(set(_registry.MODELS)), real, left]))
    """
    assert printed(code, path=fake_timm) == [ALL, ALL, "SourceFileLoader", []]


def test_a_thread_that_found_timm_before_the_hook_was_there(fake_timm: Path) -> None:
    code = """
        import importlib, json, sys, threading
        from importlib.machinery import PathFinder
        import convnext_study
        from convnext_study.models import timm_hook
        sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, timm_hook._Finder)]
        found, hooked = threading.Event(), threading.Event()
        class Slow:
            def find_spec(name, path=None, target=None):
                spec = PathFinder.find_spec(name, path, target) if name == "timm.models" else None
                if spec is not None:
                    found.set()
                    hooked.wait(0.5)  # as a disk that answers late
                return spec
        sys.meta_path.insert(0, Slow)
        thread = threading.Thread(target=importlib.import_module, args=["timm"])
        thread.start()
        found.wait()
        timm_hook.install()
        hooked.set()
        thread.join()
        from timm.models import _registry
        print(json.dumps(len(_registry.MODELS)))
    """
    assert printed(code, path=fake_timm) == ALL


def test_a_failed_registration_leaves_timm_whole(fake_timm: Path) -> None:
    done = python(
        """
        import sys, convnext_study
        sys.modules["convnext_study.models.registry"] = None
        import timm
        print(timm.models.__name__)
        """,
        path=fake_timm,
    )
    assert (done.returncode, done.stdout) == (0, "timm.models\n")
    assert "timm will not find the networks of convnext_study" in done.stderr


def test_without_timm_the_package_still_imports(fake_timm: Path) -> None:
    code = """
        import json, sys, convnext_study
        sys.path[:] = []
        try:
            import timm.models
        except ModuleNotFoundError as error:
            print(json.dumps(error.name))
    """
    assert printed(code, path=fake_timm) == "timm"


def test_public_names() -> None:
    assert set(convnext_study.__all__) <= set(dir(convnext_study))
    for name in convnext_study.__all__:
        assert getattr(convnext_study, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Netspec'"):
        convnext_study.Netspec  # noqa: B018


def test_default_cfg() -> None:
    """What depends on the network is in `test_timm_contract.py`."""
    config = timm.get_pretrained_cfg("roadmap_t_gelu")
    assert (config.crop_pct, config.interpolation) == (0.875, "bicubic")
    assert config.mean == timm.data.IMAGENET_DEFAULT_MEAN
    assert config.std == timm.data.IMAGENET_DEFAULT_STD
    assert (config.license, config.has_weights) == ("apache-2.0", None)
    assert "GELU" in (timm.model_entrypoint("roadmap_t_gelu").__doc__ or "")


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"kernal": 9}, TypeError, r"^roadmap_nano_gelu: no argument kernal; .*kernel\?$"),
        ({"kernel": 8}, SpecError, "^kernel: 8 is even; .*$"),
        ({"output_stride": 4}, ValueError, "^output_stride: 4; .*$"),
        ({"global_pool": "median"}, ValueError, "^global_pool: 'median' is unknown; .*$"),
        ({"pretrained": True}, RuntimeError, "^No pretrained weights exist for roadmap_nano_gelu"),
    ],
)
def test_bad_requests_are_one_line(
    fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        timm.create_model("roadmap_nano_gelu", **fields)


def test_fields_device_and_dtype_by_keyword() -> None:
    net = timm.create_model("roadmap_nano_separate_downsampling", device="meta", layer_scale=0.1)
    assert {weight.device.type for weight in net.parameters()} == {"meta"}
    assert net.spec == VARIANTS["roadmap_nano_separate_downsampling"].spec.replace(layer_scale=0.1)
    net = timm.create_model("roadmap_nano_gelu", dtype=torch.bfloat16)
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}
    net.reset_classifier(3)
    assert net.get_classifier().weight.dtype == torch.bfloat16
    assert net.eval()(torch.rand(1, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_checkpoint_filter(prefix: str) -> None:
    weights = timm.create_model("roadmap_nano_gelu").state_dict()
    wrapped = {prefix + name: tensor for name, tensor in weights.items()}
    for saved in (wrapped, {"model": wrapped, "epoch": 3}):
        made = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": saved}}
        again = timm.create_model("roadmap_nano_gelu", **made).state_dict()
        assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


def test_the_lean_import_leaves_the_compiler_and_wandb_until_they_are_used() -> None:
    found = printed(
        """
        import json, sys, torch
        disable = torch.compiler.disable
        from convnext_study.models.lean_timm import timm
        late = ("torch._dynamo", "torch._dynamo.utils", "wandb")
        early = [name for name in late if name in sys.modules]
        net = timm.create_model("naflexvit_base_patch16_gap", depth=1, embed_dim=64, num_heads=2)
        shape = net(torch.zeros(1, 3, 224, 224)).shape[0], torch.compiler.disable is disable
        from torchvision.ops import roi_align
        pooled = roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0, 0, 0, 2, 2.0]]), 1)
        from torch._dynamo.utils import counters
        compiled = torch.compile(timm.layers.LayerNorm2d(4), backend="eager")
        ones = compiled(torch.ones(1, 4, 2, 2)).abs().max().item() < 1e-3
        tracker = getattr(timm.utils.summary, "wandb", None)
        kind = tracker and tracker.sdk.__name__
        print(json.dumps([early, shape, pooled.item(), ones, kind]))
        """
    )
    import wandb

    assert found == [[], [1, True], 1.0, True, wandb.sdk.__name__]


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
