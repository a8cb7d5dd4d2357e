"""What a data set with a label for every pixel is to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from convnext_study.data.dataset import CorruptImages, PixelDataset

IGNORE = 255  # the class of pixels that have none


@dataclass(frozen=True)
class DenseData:
    """A data set with a training and a validation part; its labels are (H, W) uint8 maps.

    Args:
        uri: that it was opened by.
        classes: names, in the order of the labels.
        size: height and width of the validation images; of the first one where they differ.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        train: the pairs that are trained on.
        val: the others.
        one_size: whether all images are of that size, so that many can be had at a time.
        flips: whether a mirrored image still shows its classes.
        val_groups: (N,) int64, which validation images belong together; None: independent.
        notes: what is in the data's folders and not read.
        corrupt: counts bad pairs.
    """

    uri: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: PixelDataset
    val: PixelDataset
    one_size: bool = False
    flips: bool = True
    val_groups: Tensor | None = None
    notes: tuple[str, ...] = ()
    corrupt: CorruptImages = field(default_factory=CorruptImages)

    @property
    def num_classes(self) -> int:
        """How many classes there are, without the ignored one."""
        return len(self.classes)
