"""From pixels as they were read to a network's input, on its device.

Pixels are moved as uint8, a quarter of the bytes, and normalised and erased on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from convnext_study.data.dataset import DatasetPair
from convnext_study.data.loader import Batch
from convnext_study.data.workers import EraseBox


class ToDevice:
    """Moves batches to a device, normalises the images and fills the boxes of Random Erasing.

    Args:
        data: provides the mean and standard deviation.
        device: of the network.
        memory_format: that the network prefers.
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
        """Images (n, 3, H, W) float32, newly allocated, and labels (n,)."""
        batch = batch.to(self.device)
        images = self._normalise(batch.images.contiguous(memory_format=self.memory_format))
        erase(images, batch.erased)
        return images, batch.labels

    def _normalise(self, images: Tensor) -> Tensor:
        """(n, C, H, W) uint8 to float32 with mean 0 and standard deviation 1 per channel."""
        count, channels, height, width = images.shape
        if self.memory_format != torch.channels_last:
            mean, std = self._mean.view(-1, 1, 1), self._std.view(-1, 1, 1)
            return images.float().sub_(mean).div_(std)
        # A row at a time: torch is slow if the innermost dimension has three values.
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        values = rows.float().sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)


def erase(images: Tensor, boxes: Iterable[EraseBox]) -> None:
    """Fill boxes of (n, 3, H, W) with normal noise, in place, as timm's Random Erasing does."""
    device = images.device if images.is_cuda else torch.device("cpu")
    generator = torch.Generator(device)
    for image, top, left, height, width, seed in boxes:
        shape = (images.shape[1], height, width)
        noise = torch.randn(shape, generator=generator.manual_seed(seed), device=device)
        images[image, :, top : top + height, left : left + width] = noise


class CudaStreams:
    """Work that a GPU does in parallel with its main work, in a second stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def parallel(self) -> AbstractContextManager[object]:
        """Work started inside runs in parallel with the main work."""
        context: AbstractContextManager[object] = torch.cuda.stream(self._stream)
        return context

    def wait(self) -> None:
        """Later main work waits for the parallel work started so far."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def keep(self, tensor: Tensor) -> None:
        """Keep the memory of a tensor made in parallel until the main work has used it."""
        tensor.record_stream(torch.cuda.current_stream(self._device))


class Prefetcher:
    """Copies a batch to the device while the previous one is in use."""

    def __init__(self, copy: Callable[[Batch], Batch], streams: Any) -> None:
        self._copy, self._streams = copy, streams

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches in order, each on the device when it is yielded."""
        ready: Batch | None = None
        for batch in batches:
            with self._streams.parallel():
                copied = self._copy(batch)
            if ready is not None:
                yield ready
            # Only now, so that work on the previous batch does not wait for this copy.
            self._streams.wait()
            for tensor in (copied.images, copied.labels):
                self._streams.keep(tensor)
            ready = copied
        if ready is not None:
            yield ready


def prefetcher(device: torch.device | str) -> Callable[[Iterable[Batch]], Iterator[Batch]]:
    """Prefetches batches to a GPU; on other devices, passes them through."""
    target = torch.device(device)
    if target.type != "cuda":
        return iter
    return Prefetcher(lambda batch: batch.pinned().to(target), CudaStreams(target))
