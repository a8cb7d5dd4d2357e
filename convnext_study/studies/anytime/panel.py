"""Images with the prediction, the confidence and the skipped positions of each exit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.report.figures.style import COLOURS, FAINT, new_figure, style
from convnext_study.runs.records import Record
from convnext_study.studies.anytime.trained import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray

    Array = ndarray[Any, Any]

TITLE = "What each exit says, how sure it is, and what it skipped"
ROWS = ("prediction", "confidence", "computed")
KEYS = ("", "yellow: 1, dark: 0", "blue; dark: skipped")
SIDE, MARGIN, HEAD = 1.15, 0.75, 0.5  # inches
MOST_COLOURS = 20  # of a qualitative map, which then begins anew
HIDDEN = (0.85, 0.85, 0.85)  # of pixels without a class


@dataclass(frozen=True)
class ExitView:
    """One image at one exit: labels (H, W), confidence (H, W) from 0 to 1, and where the exit was
    computed (h, w)."""

    labels: Array
    confidence: Array
    computed: Array


@dataclass(frozen=True)
class ImageView:
    """An image (H, W, 3) from 0 to 1, its labels (H, W), what each exit says, and the names of the
    classes."""

    image: Array
    truth: Array
    exits: tuple[ExitView, ...]
    classes: tuple[str, ...]


def views(record: Record, count: int = 2) -> list[ImageView]:
    """The first validation images at each exit of a run's network.

    Raises UserError where the network cannot be had.
    """
    import numpy as np
    import torch

    from convnext_study.studies.anytime.networks.heads import upsample

    trained = load(record)
    images, truth = trained.task.first_images(count)
    size = (images.shape[2], images.shape[3])
    with torch.inference_mode():
        outputs = list(trained.net.run(images))
    data = trained.task.data
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (data.mean, data.std))
    shown = (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    found: list[list[ExitView]] = [[] for _ in shown]
    for output in outputs:
        confidence, labels = upsample(output.logits, size).softmax(1).max(1)
        everywhere = torch.ones_like(output.logits[:, :1], dtype=torch.bool)
        computed = everywhere if output.computed is None else output.computed
        for place, exits in enumerate(found):
            exits.append(
                ExitView(*(np.asarray(one[place]) for one in (labels, confidence, computed[:, 0])))
            )
    return [
        ImageView(image, np.asarray(label), tuple(exits), data.classes)
        for image, label, exits in zip(shown, truth, found, strict=True)
    ]


@style()
def panel(shown: list[ImageView], title: str) -> Figure:
    """Three rows an image: prediction, confidence, and what was computed (blue) or skipped."""
    from matplotlib.colors import ListedColormap

    where = ListedColormap([COLOURS["ink"], COLOURS["bar"]])
    columns, high = 1 + len(shown[0].exits), len(ROWS) * len(shown)
    ratio = shown[0].image.shape[0] / shown[0].image.shape[1]
    width = MARGIN + columns * SIDE * max(1.0, 1 / ratio)
    figure = new_figure(width, HEAD + high * SIDE * max(1.0, ratio), layout="constrained")
    grid = figure.subplots(high, columns, squeeze=False)
    for place, view in enumerate(shown):
        rows = grid[len(ROWS) * place : len(ROWS) * (place + 1)]
        _show(rows[0][0], view.image)
        _show(rows[1][0], coloured(view.truth))
        rows[2][0].axis("off")
        rows[1][0].set_xlabel("labels", fontsize=7.5)
        for row, name, key in zip(rows, ROWS, KEYS, strict=True):
            row[1].set_ylabel(f"{name}\n{key}".rstrip(), color=FAINT, fontsize=7.5)
        for column, exit in enumerate(view.exits, 1):
            _show(rows[0][column], coloured(exit.labels))
            _show(rows[1][column], exit.confidence, cmap="viridis", vmin=0, vmax=1)
            _show(rows[2][column], exit.computed, cmap=where, vmin=0, vmax=1)
            rows[2][column].set_xlabel(f"{exit.computed.mean():.0%} {ROWS[2]}", fontsize=7.5)
    grid[0][0].set_title("image")
    for column in range(1, columns):
        grid[0][column].set_title(f"exit {column}")
    figure.suptitle(title, fontsize=9.5)
    _name_colours(figure, shown)
    return figure


def _name_colours(figure: Figure, shown: list[ImageView]) -> None:
    """A legend of the classes that are seen."""
    import numpy as np
    from matplotlib.patches import Patch

    maps = [one for view in shown for one in (view.truth, *(exit.labels for exit in view.exits))]
    seen = np.unique(np.concatenate([one.ravel() for one in maps]))
    classes = shown[0].classes
    patches = [
        Patch(color=coloured(np.array([label]))[0], label=classes[label])
        for label in seen
        if label < len(classes)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7.5)


def coloured(labels: Array) -> Array:
    """Labels (H, W) as colours (H, W, 3); the first class, as a rule the background, is dark."""
    import numpy as np
    from matplotlib import colormaps

    from convnext_study.data.dense.dataset import IGNORE

    table = np.asarray(colormaps["tab20"](np.arange(MOST_COLOURS)))[:, :3]
    found: Array = table[(labels.astype(int) - 1) % MOST_COLOURS]
    found[labels == 0] = [int(COLOURS["ink"][at : at + 2], 16) / 255 for at in (1, 3, 5)]
    found[labels == IGNORE] = HIDDEN
    return found


def _show(axes: Axes, image: Array, **how: Any) -> None:
    axes.imshow(image, interpolation="nearest", **how)
    axes.set(xticks=[], yticks=[])
