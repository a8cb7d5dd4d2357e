"""From pixels as they were read to what a network is given, on its device.

A quarter of the bytes is moved, and all that costs per pixel is done where it costs least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from convnext_study.data.dataset import DatasetPair
from convnext_study.data.loader import Batch
from convnext_study.data.workers import Erased


class Prepare:
    """Batches to normalised images on a device, erased where a box says so.

    Args:
        data: has the mean and standard deviation.
        device: of the network.
        memory_format: that the network likes.
    """

    def __init__(
        self,
        data: DatasetPair,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.device, self.memory_format = torch.device(device), memory_format
        self._mean = (torch.tensor(data.mean) * 255).to(self.device)
        self._std = (torch.tensor(data.std) * 255).to(self.device)

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (n, 3, H, W) float32, which are nobody else's, and labels (n,)."""
        batch = batch.to(self.device)
        images = self._normalise(batch.images.contiguous(memory_format=self.memory_format))
        erase(images, batch.erased)
        return images, batch.labels

    def _normalise(self, images: Tensor) -> Tensor:
        """(n, C, H, W) uint8 to float32 with mean 0 and standard deviation 1 in each channel."""
        count, channels, height, width = images.shape
        if self.memory_format != torch.channels_last:
            mean, std = self._mean.view(-1, 1, 1), self._std.view(-1, 1, 1)
            return images.float().sub_(mean).div_(std)
        # Whole rows at a time: torch is slow where the innermost dimension is three values.
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        values = rows.float().sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)


def erase(images: Tensor, boxes: Iterable[Erased]) -> None:
    """Fill boxes of (n, 3, H, W) with normal noise, in place, as timm's Random Erasing does."""
    place = images.device if images.is_cuda else torch.device("cpu")
    draw = torch.Generator(place)
    for image, top, left, height, width, seed in boxes:
        shape = (images.shape[1], height, width)
        noise = torch.randn(shape, generator=draw.manual_seed(seed), device=place)
        images[image, :, top : top + height, left : left + width] = noise


class CudaStreams:
    """Work that a GPU does beside its main work, in a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def beside(self) -> AbstractContextManager[object]:
        """What is begun inside runs beside the main work."""
        beside: AbstractContextManager[object] = torch.cuda.stream(self._stream)
        return beside

    def wait(self) -> None:
        """Main work begun from now on waits for what was begun beside it until now."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def keep(self, tensor: Tensor) -> None:
        """The main work uses a tensor that was made beside it: its memory stays until then."""
        tensor.record_stream(torch.cuda.current_stream(self._device))


class Prefetcher:
    """Copies a batch to the device while the one before it is worked on."""

    def __init__(self, copy: Callable[[Batch], Batch], streams: Any) -> None:
        self._copy, self._streams = copy, streams

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches in order, each on the device by the time it is given."""
        ready: Batch | None = None
        for batch in batches:
            with self._streams.beside():
                copied = self._copy(batch)
            if ready is not None:
                yield ready
            # Only now, so that the work on the batch before did not wait for this copy.
            self._streams.wait()
            for tensor in (copied.images, copied.labels):
                self._streams.keep(tensor)
            ready = copied
        if ready is not None:
            yield ready


def prefetcher(device: torch.device | str) -> Callable[[Iterable[Batch]], Iterator[Batch]]:
    """How batches come to a device: ahead of their use on a GPU, as they are elsewhere."""
    place = torch.device(device)
    if place.type != "cuda":
        return iter
    return Prefetcher(lambda batch: batch.pinned().to(place), CudaStreams(place))
