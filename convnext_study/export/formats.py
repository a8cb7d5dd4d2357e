"""A run's network as files that others can use, each checked against the network itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import RunFailed
from convnext_study.export.weights import (
    USE_TIMM,
    ExportError,
    model_card,
    save_checkpoint,
    save_for_hf,
)
from convnext_study.runs.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convnext_study.data.transforms.evaluation import EvalTransform

# Of the largest output. float32 sums in another order, as in another runtime, round in the sixth
# digit for each of a few dozen layers.
TOLERANCE = 1e-4
BATCH = 3  # not 1, which an exporter may take for a constant


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how far its outputs are from the network's at most."""

    folder: Path
    files: tuple[str, ...]
    difference: float
    largest: float  # output, for scale


def export_model(
    net: nn.Module,
    kind: str,
    folder: Path,
    transform: EvalTransform,
    results: dict[str, Any],
    shape: tuple[int, int, int] | None = None,
) -> ExportResult:
    """Write the network with its card into a folder, read it back, and compare outputs.

    Args:
        net: a row of the road map as `weights.is_row` has it, or for `ANY_NETWORK` any.
        kind: a key of `FORMATS`.
        folder: made if missing.
        transform: of the images it wants, mean and standard deviation included.
        results: what was measured with these weights, for the card.
        shape: channels, height and width of an image, where it is no square of the transform's.

    Raises:
        ExportError: a network that answers by chance, a missing extra, or a folder that cannot be
            written.
        RunFailed: what was written does not give the network's outputs.
    """
    import torch

    from convnext_study.models.fast_conv import restore_convs

    restore_convs(net.eval())
    shape = shape or (3, transform.image_size, transform.image_size)
    images = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, again = _outputs(net(images)), _outputs(net(images))
    if not all(map(partial(torch.allclose, equal_nan=True), expected, again)):
        raise ExportError(
            f"{type(net).__name__}: draws by chance, such as masks, and answers the same images "
            "differently each time: no file can be checked against it; export another run's"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run = FORMATS[kind](_Export(net, folder, transform, results, images))
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror or error})") from error
    with torch.inference_mode():
        found = _outputs(run(images))
    pairs = zip(expected, found, strict=True)
    # torch's, since Python's passes over what is no number
    difference = float(torch.stack([(one - other).abs().max() for one, other in pairs]).max())
    largest = max(float(one.abs().max()) for one in expected)
    if not difference <= TOLERANCE * max(largest, 1.0):
        raise RunFailed(
            f"{folder}: the exported network's outputs differ by {difference:.2g} from the "
            "run's; do not use it"
        )
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ExportResult(folder, files, difference, largest)


Runner = Callable[["Tensor"], Any]  # one output, or those of several exits


def _outputs(found: Any) -> list[Tensor]:
    """The outputs of a network with one, or with several exits."""
    return list(found) if isinstance(found, list | tuple) else [found]


@dataclass(frozen=True)
class _Export:
    """What is written where, and the images on which it is compared."""

    net: Any
    folder: Path
    transform: EvalTransform
    results: dict[str, Any]
    images: Tensor

    def write_card(self, use: str, *, with_config: bool = True) -> None:
        channels, height, width = map(int, self.images.shape[1:])
        shape = channels, height, width
        config = {**self.transform.config(), "input_size": shape} if with_config else None
        card = model_card(self.net, shape, self.results, use, config)
        write_bytes(self.folder / "README.md", card.encode())


def _hf(export: _Export) -> Runner:
    import timm

    save_for_hf(export.net, export.folder, export.transform.config())
    export.write_card(USE_TIMM, with_config=False)  # timm's config.json has it
    loaded: Any = timm.create_model(f"local-dir:{export.folder}", pretrained=True)
    return loaded.eval()  # type: ignore[no-any-return]


def _safetensors(export: _Export) -> Runner:
    import json

    from safetensors import safe_open

    from convnext_study.models.pretrained.state_files import read_weights
    from convnext_study.models.roadmap_net import RoadmapNet
    from convnext_study.roadmap.spec import NetSpec

    net, path = export.net, export.folder / "model.safetensors"
    save_checkpoint(net, path)
    export.write_card(_USE_SAFETENSORS.format(classes=net.num_classes))
    with safe_open(path, "pt") as file:
        spec = NetSpec.from_dict(json.loads(file.metadata()["spec"]))
    again = RoadmapNet(spec, num_classes=net.num_classes, in_chans=net.in_chans)
    again.load_state_dict(read_weights(path).state)
    return again.eval()


def _onnx(export: _Export) -> Runner:
    import warnings

    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it, and says so less plainly
    except ImportError as error:
        raise ExportError(
            f"--to onnx: {error.name} is not installed; pip install 'convnext-study[onnx]'"
        ) from None
    path = export.folder / "model.onnx"
    with torch.no_grad():
        count = len(_outputs(export.net(export.images[:1])))
    names = ["logits"] if count == 1 else [f"logits_exit{exit}" for exit in range(1, count + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside the exporter
        torch.onnx.export(
            export.net,
            (export.images[:2],),  # not 3, as it is then compared with
            path,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    which = "[0]" if count == 1 else ""
    export.write_card(_USE_ONNX.format(outputs=", ".join(names), which=which))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: [
        torch.from_numpy(one) for one in session.run(None, {"images": images.numpy()})
    ]


def _pt2(export: _Export) -> Runner:
    import torch

    path = export.folder / "model.pt2"
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(export.net, (export.images[:2],), dynamic_shapes=(batch,))
    torch.export.save(program, path)
    export.write_card(_USE_PT2)
    return torch.export.load(path).module()


FORMATS: dict[str, Callable[[_Export], Runner]] = {
    "hf": _hf,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
}
# Those that hold the network itself, and not only weights for one that can be built again.
ANY_NETWORK = ("onnx", "pt2")

_USE_SAFETENSORS = """\
The file's metadata hold the network's fields as JSON.

```python
import json
from safetensors import safe_open
from safetensors.torch import load_file
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap.spec import NetSpec

with safe_open("model.safetensors", "pt") as file:
    spec = NetSpec.from_dict(json.loads(file.metadata()["spec"]))
model = RoadmapNet(spec, num_classes={classes}).eval()
model.load_state_dict(load_file("model.safetensors"))
```
"""
_USE_ONNX = """\
One input, `images` (batch, 3, height, width) float32. Outputs: {outputs}.

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {{"images": images}}){which}  # images: a NumPy array
```
"""
_USE_PT2 = """\
Needs PyTorch alone.

```python
import torch

model = torch.export.load("model.pt2").module()
logits = model(images)  # (batch, 3, height, width) float32
```
"""
