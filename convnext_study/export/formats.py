"""Export a run's network to files, each checked against the network itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import RunFailed, first_line
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

# Relative to the largest output. In another runtime float32 sums have another order and differ in
# the sixth digit in each of a few dozen layers.
TOLERANCE = 1e-4
CARD, MODEL = "README.md", "model"  # how files of every format are called
BATCH = 3  # not 1, which an exporter may take for a constant


@dataclass(frozen=True)
class ExportResult:
    """The written files, and the largest difference of their outputs from the network's."""

    folder: Path
    files: tuple[str, ...]
    difference: float
    largest: float  # the largest output, for scale


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
        net: a row of the road map (`weights.is_row`); for the formats in `ANY_NETWORK`, any.
        kind: a key of `FORMATS`.
        folder: created if missing.
        transform: of its input images, including mean and standard deviation.
        results: metrics of these weights, for the card.
        shape: channels, height and width of an image, if not the transform's square.

    Raises:
        ExportError: a network with random outputs, a missing extra, or a folder that cannot be
            written.
        RunFailed: the written network's outputs differ.
    """
    import torch
    from safetensors import SafetensorError

    from convnext_study.models.fast_conv import restore_convs

    restore_convs(net.eval())
    shape = shape or (3, transform.image_size, transform.image_size)
    images = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, repeated = _outputs(net(images)), _outputs(net(images))
    if not all(map(partial(torch.allclose, equal_nan=True), expected, repeated)):
        raise ExportError(
            f"{type(net).__name__}: draws random numbers, such as masks, so its outputs vary and "
            "no file can be checked against it; export another run"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CARD).exists() and not any(folder.glob(f"{MODEL}.*")):
            raise ExportError(f"{folder}: has a {CARD} of something else; choose another --out")
        run = FORMATS[kind](_Export(net, folder, transform, results, images))
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror or error})") from error
    except SafetensorError as error:  # its writer's word for a full disk
        raise ExportError(f"{folder}: cannot be written ({first_line(error)})") from error
    with torch.inference_mode():
        exported = _outputs(run(images))
    pairs = zip(expected, exported, strict=True)
    # torch's max, since Python's ignores NaN.
    difference = float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())
    largest = max(float(output.abs().max()) for output in expected)
    if not difference <= TOLERANCE * max(largest, 1.0):
        raise RunFailed(
            f"{folder}: the exported network's outputs differ by {difference:.2g} from the "
            "run's; do not use it"
        )
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ExportResult(folder, files, difference, largest)


Runner = Callable[["Tensor"], Any]  # returns one output, or those of several exits


def _outputs(result: Any) -> list[Tensor]:
    """The outputs of a network with one or several exits."""
    return list(result) if isinstance(result, list | tuple) else [result]


@dataclass(frozen=True)
class _Export:
    """What to write and where, and the images to compare outputs on."""

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
        write_bytes(self.folder / CARD, card.encode())


def _hf(export: _Export) -> Runner:
    import timm

    save_for_hf(export.net, export.folder, export.transform.config())
    export.write_card(USE_TIMM, with_config=False)  # it is in timm's config.json
    loaded: Any = timm.create_model(f"local-dir:{export.folder}", pretrained=True)
    return loaded.eval()  # type: ignore[no-any-return]


def _safetensors(export: _Export) -> Runner:
    import json

    from safetensors import safe_open

    from convnext_study.models.pretrained.state_files import read_weights
    from convnext_study.models.roadmap_net import RoadmapNet
    from convnext_study.roadmap.spec import NetSpec

    net, path = export.net, export.folder / f"{MODEL}.safetensors"
    save_checkpoint(net, path)
    export.write_card(_USE_SAFETENSORS.format(classes=net.num_classes))
    with safe_open(path, "pt") as file:
        spec = NetSpec.from_dict(json.loads(file.metadata()["spec"]))
    loaded = RoadmapNet(spec, num_classes=net.num_classes, in_chans=net.in_chans)
    loaded.load_state_dict(read_weights(path).state)
    return loaded.eval()


def _onnx(export: _Export) -> Runner:
    import warnings

    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  needed by torch's exporter, whose error is less clear
    except ImportError as error:
        raise ExportError(
            f"--to onnx: {error.name} is not installed; pip install 'convnext-study[onnx]'"
        ) from None
    path = export.folder / f"{MODEL}.onnx"
    with torch.no_grad():
        count = len(_outputs(export.net(export.images[:1])))
    names = ["logits"] if count == 1 else [f"logits_exit{exit}" for exit in range(1, count + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        torch.onnx.export(
            export.net,
            (export.images[:2],),  # not BATCH, the number that it is compared with
            path,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    index = "[0]" if count == 1 else ""
    export.write_card(_USE_ONNX.format(outputs=", ".join(names), which=index))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: [
        torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})
    ]


def _pt2(export: _Export) -> Runner:
    import torch

    path = export.folder / f"{MODEL}.pt2"
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(export.net, (export.images[:2],), dynamic_shapes=(batch,))
    content = io.BytesIO()  # torch ends the process where a disk is full
    torch.export.save(program, content)
    write_bytes(path, content.getvalue())
    export.write_card(_USE_PT2)
    return torch.export.load(path).module()


FORMATS: dict[str, Callable[[_Export], Runner]] = {
    "hf": _hf,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
}
# Formats that contain the network itself, and not only weights for one that is built from code.
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
_USE_PT2 = (
    "Needs only PyTorch.\n\n```python\nimport torch\n\nmodel = "
    'torch.export.load("model.pt2").module()\nlogits = model(images)  # (batch, 3, '
    "height, width) float32\n```\n\n"
)
