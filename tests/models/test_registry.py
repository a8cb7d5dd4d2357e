"""Registration with timm: in either order of import, once, and without making imports heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import convnext_study
from convnext_study.models import registry, timm_hook
from convnext_study.models.registry import VARIANTS
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
    assert set(timm.list_models("roadmap_*")) == ROWS
    assert set(timm.list_models("roadmap_*", module="registry")) == ROWS
    released = timm.list_models("roadmap_*", pretrained=True)
    assert {name.partition(".")[0] for name in released} == {*registry.RELEASED}


def test_an_entry_point_is_a_function_of_its_own() -> None:
    entry = timm.model_entrypoint("roadmap_t_gelu")
    assert entry is vars(registry)["roadmap_t_gelu"]
    assert (entry.__name__, entry.__module__) == (
        "roadmap_t_gelu",
        "convnext_study.models.registry",
    )
    assert "GELU" in (entry.__doc__ or "")


def test_the_package_first_then_timm() -> None:
    heavy, found, still, count = printed("""
        import json, sys
        import convnext_study
        heavy = [name for name in ("torch", "timm", "numpy") if name in sys.modules]
        from importlib.util import find_spec
        found = find_spec("timm") is not None  # asking must not spend the hook, nor import
        still = "timm" in sys.modules
        from timm.models import create_model, list_models
        from convnext_study import NetSpec, RoadmapNet
        net = create_model("roadmap_nano_gelu")
        assert isinstance(net, RoadmapNet) and isinstance(net.spec, NetSpec)
        print(json.dumps([heavy, found, still, len(list_models("roadmap_*"))]))
    """)
    assert (heavy, found, still, count) == ([], True, False, 48)


@pytest.mark.parametrize(
    "first",
    [
        "import convnext_study, timm",
        "import timm, convnext_study",
        "import convnext_study, timm.layers",
        "import timm.layers, convnext_study",
        "import convnext_study.models.registry, timm",
        "import os; os.environ['EARLY'] = '1'; import timm",  # from inside a half-imported timm
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


def test_threads_that_import_at_once(fake_timm: Path) -> None:
    code = """
        import importlib, json, threading
        names = ["timm", "convnext_study"] * 8
        start = threading.Barrier(len(names))
        def load(name):
            start.wait()
            importlib.import_module(name)
        threads = [threading.Thread(target=load, args=[name]) for name in names]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        from timm.models import _registry
        print(json.dumps(len(_registry.MODELS)))
    """
    for _ in range(3):
        assert printed(code, path=fake_timm) == ALL


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
    assert "timm will not know the networks of convnext_study" in done.stderr


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
    assert convnext_study.get_roadmap("t") is ROADMAPS["t"]
    assert convnext_study.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'Netspec'"):
        convnext_study.Netspec  # noqa: B018


@pytest.mark.parametrize("row", ["roadmap_t_gelu", "roadmap_b_resnet200", "roadmap_nano_kernel_5"])
def test_default_cfg(row: str) -> None:
    config = timm.get_pretrained_cfg(row)
    nano = "nano" in row
    assert config.input_size == ((3, 64, 64) if nano else (3, 224, 224))
    assert config.pool_size == ((2, 2) if nano else (7, 7))
    assert config.num_classes == (10 if nano else 1000)
    assert (config.crop_pct, config.interpolation) == (0.875, "bicubic")
    assert config.mean == timm.data.IMAGENET_DEFAULT_MEAN
    assert config.std == timm.data.IMAGENET_DEFAULT_STD
    assert (config.license, config.has_weights) == ("apache-2.0", None)


def test_fields_of_the_network_by_keyword() -> None:
    net = timm.create_model(
        "roadmap_nano_gelu", kernel=9, layer_scale=1e-6, depths=(1, 1, 1, 1), drop_path_rate=0.1
    )
    usual = VARIANTS["roadmap_nano_gelu"].spec
    assert net.spec == usual.replace(kernel=9, layer_scale=1e-6, depths=(1, 1, 1, 1))


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(TypeError, match=r"^roadmap_nano_gelu: no argument kernal; .*kernel\?$"):
        timm.create_model("roadmap_nano_gelu", kernal=9)
    with pytest.raises(SpecError, match=r"^kernel: 8 is even; .*$"):
        timm.create_model("roadmap_nano_gelu", kernel=8)
    with pytest.raises(ValueError, match=r"^output_stride: 4; .*$"):
        timm.create_model("roadmap_nano_gelu", output_stride=4)
    with pytest.raises(ValueError, match=r"^global_pool: 'median' is unknown; .*$"):
        timm.create_model("roadmap_nano_gelu", global_pool="median")
    with pytest.raises(
        RuntimeError, match=r"^No pretrained weights exist for roadmap_nano_gelu.*$"
    ):
        timm.create_model("roadmap_nano_gelu", pretrained=True)


def test_device_and_dtype() -> None:
    net = timm.create_model("roadmap_nano_separate_downsampling", device="meta", layer_scale=0.1)
    assert {weight.device.type for weight in net.parameters()} == {"meta"}
    net = timm.create_model("roadmap_nano_gelu", dtype=torch.bfloat16)
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}
    net.reset_classifier(3)
    assert net.get_classifier().weight.dtype == torch.bfloat16
    assert net.eval()(torch.rand(1, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_checkpoint_filter(prefix: str) -> None:
    net = timm.create_model("roadmap_nano_gelu")
    weights = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    for saved in (weights, {"model": weights, "epoch": 3}):
        overlay = {"state_dict": saved}
        again = timm.create_model(
            "roadmap_nano_gelu", pretrained=True, pretrained_cfg_overlay=overlay
        )
        for name, tensor in again.state_dict().items():
            assert torch.equal(tensor, net.state_dict()[name])


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
