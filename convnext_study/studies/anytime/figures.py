"""The anytime curve, and the panel: each exit's prediction, confidence and skipped positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.report.figures.style import COLOURS, FAINT, draw_charts, new_figure, style
from convnext_study.runs.records import Record
from convnext_study.studies.anytime.arm_exits import ACCURACIES, ArmExit
from convnext_study.studies.anytime.load_checkpointed import load_checkpointed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray

    Array = ndarray[Any, Any]

CURVE = "Accuracy against computation, exit by exit"
MARKERS = "osD^vP*X"
PANEL = "What each exit predicts, its confidence, and what it skipped"
ROWS = ("prediction", "confidence", "computed")
KEYS = ("", "yellow: 1, dark: 0", "blue; dark: skipped")
SIDE, MARGIN, HEAD = 1.15, 0.75, 0.5  # inches
MOST_COLOURS = 20  # of a qualitative map, which then repeats
HIDDEN = (0.85, 0.85, 0.85)  # of pixels without a class


@style()
def curve(points: Sequence[ArmExit], sweep: Sequence[ArmExit]) -> Figure:
    """Accuracy against MACs with masks, and against milliseconds where they were measured.

    ``sweep``: the last exit of one network at other thresholds.
    """
    timed = any(point.milliseconds is not None for point in points)
    name = ACCURACIES[points[0].accuracy]
    titles = [f"{name}, %", f"{name}, % (one network of each, one core)"][: 1 + timed]
    figure, charts = draw_charts(titles, (5.2, 4.6), sharey=True)
    _draw(charts[0], points, _million_macs, "MACs to the exit, M")
    if sweep:
        label = "CA at other thresholds, one network"
        look: dict[str, Any] = {"color": COLOURS["faint"], "linewidth": 1, "markersize": 4}
        xs, ys = ([value(point) for point in sweep] for value in (_million_macs, _accuracy))
        charts[0].plot(xs, ys, ":x", label=label, **look)
    if timed:
        _draw(charts[1], points, lambda point: point.milliseconds, "milliseconds to the exit")
    figure.legend(*charts[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _million_macs(point: ArmExit) -> float:
    return point.mean("macs") / 1e6


def _accuracy(point: ArmExit) -> float:
    return fmean(point.values)


def _draw(
    axes: Axes, points: Sequence[ArmExit], cost: Callable[[ArmExit], float | None], unit: str
) -> None:
    """A colour and a marker per arm; arms with one exit have no line."""
    import numpy as np
    from matplotlib.ticker import LogLocator

    for i, arm in enumerate(dict.fromkeys(point.arm for point in points)):
        own = [point for point in points if point.arm == arm]
        measured = [(x, point) for point in own if (x := cost(point)) is not None]
        if not measured:
            continue
        xs, reached = zip(*measured, strict=True)
        heights = [_accuracy(point) for point in reached]
        intervals = [point.interval or (y, y) for y, point in zip(heights, reached, strict=True)]
        axes.errorbar(
            xs,
            heights,
            yerr=np.abs(np.transpose(intervals) - heights),
            label=reached[0].label,
            color=f"C{i % 10}",
            marker=MARKERS[i % len(MARKERS)],
            linestyle="none" if reached[0].exits == 1 else "-",
            markersize=5,
            linewidth=1.3,
            elinewidth=0.8,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


class ExitView(NamedTuple):
    """One image at one exit: labels (H, W), confidence (H, W) from 0 to 1, and the mask of computed
    positions (h, w)."""

    labels: Array
    confidence: Array
    computed: Array


class ImageView(NamedTuple):
    """An image (H, W, 3) from 0 to 1, its labels (H, W), its exits, and the classes' names."""

    image: Array
    truth: Array
    exits: tuple[ExitView, ...]
    classes: tuple[str, ...]


def views(record: Record) -> list[ImageView]:
    """The first two validation images at each exit of a run's network, if it classifies pixels.

    Raises UserError where the network cannot be loaded.
    """
    import numpy as np
    import torch

    from convnext_study.studies.anytime.backbones import upsample
    from convnext_study.training.tasks.segmentation import Segmentation

    net, task = load_checkpointed(record)
    if not isinstance(task, Segmentation):
        return []
    images, truth = task.first_images(2)
    exits: list[list[ExitView]] = [[] for _ in images]
    with torch.inference_mode():
        for output in net.run(images):
            scores = upsample(output.logits, (images.shape[2], images.shape[3]))
            confidence, labels = scores.softmax(1).max(1)
            for i, image_exits in enumerate(exits):
                maps = (labels, confidence, output.mask[:, 0])
                image_exits.append(ExitView(*(np.asarray(x[i]) for x in maps)))
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (task.data.mean, task.data.std))
    pixels = (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return [
        ImageView(image, np.asarray(label), tuple(image_exits), task.data.classes)
        for image, label, image_exits in zip(pixels, truth, exits, strict=True)
    ]


@style()
def panel(views: list[ImageView], title: str) -> Figure:
    """Three rows per image: prediction, confidence, and what was computed (blue) or skipped."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([COLOURS["ink"], COLOURS["bar"]])
    columns, n_rows = 1 + len(views[0].exits), len(ROWS) * len(views)
    ratio = views[0].image.shape[0] / views[0].image.shape[1]
    width = MARGIN + columns * SIDE * max(1.0, 1 / ratio)
    figure = new_figure(width, HEAD + n_rows * SIDE * max(1.0, ratio), layout="constrained")
    grid = figure.subplots(n_rows, columns, squeeze=False)
    for i, view in enumerate(views):
        rows = grid[len(ROWS) * i : len(ROWS) * (i + 1)]
        _show(rows[0][0], view.image)
        _show(rows[1][0], coloured(view.truth))
        rows[2][0].axis("off")
        rows[1][0].set_xlabel("labels", fontsize=7.5)
        for row, name, key in zip(rows, ROWS, KEYS, strict=True):
            row[1].set_ylabel(f"{name}\n{key}".rstrip(), color=FAINT, fontsize=7.5)
        for column, exit in enumerate(view.exits, 1):
            _show(rows[0][column], coloured(exit.labels))
            _show(rows[1][column], exit.confidence, cmap="viridis", vmin=0, vmax=1)
            _show(rows[2][column], exit.computed, cmap=colours, vmin=0, vmax=1)
            rows[2][column].set_xlabel(f"{exit.computed.mean():.0%} {ROWS[2]}", fontsize=7.5)
    grid[0][0].set_title("image")
    for column in range(1, columns):
        grid[0][column].set_title(f"exit {column}")
    figure.suptitle(title, fontsize=9.5)
    _name_colours(figure, views)
    return figure


def _name_colours(figure: Figure, views: list[ImageView]) -> None:
    """A legend of the classes that are present."""
    import numpy as np
    from matplotlib.patches import Patch

    maps = [m for view in views for m in (view.truth, *(exit.labels for exit in view.exits))]
    present = np.unique(np.concatenate([m.ravel() for m in maps]))
    classes = views[0].classes
    patches = [
        Patch(color=coloured(np.array([label]))[0], label=classes[label])
        for label in present
        if label < len(classes)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7.5)


def coloured(labels: Array) -> Array:
    """Labels (H, W) as colours (H, W, 3); the first class, usually the background, is dark."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    from convnext_study.data.dataset import IGNORE

    table = np.asarray(colormaps["tab20"](np.arange(MOST_COLOURS)))[:, :3]
    colours: Array = table[(labels.astype(int) - 1) % MOST_COLOURS]
    colours[labels == 0] = to_rgb(COLOURS["ink"])
    colours[labels == IGNORE] = HIDDEN
    return colours


def _show(axes: Axes, image: Array, **options: Any) -> None:
    axes.imshow(image, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
