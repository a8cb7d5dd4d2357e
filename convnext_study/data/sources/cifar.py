"""``cifar10:PATH`` and ``cifar100:PATH``, through torchvision; downloaded only on request."""

from __future__ import annotations

import pickle
from typing import Any

import torch

from convnext_study.data.dataset import DataError, DatasetPair, MemoryImages, channel_statistics


def open_cifar10(path: str, *, download: bool = False) -> DatasetPair:
    """50,000 training and 10,000 test images of 32x32, held in memory (180 MB).

    Raises DataError where the files are missing, damaged or cannot be fetched.
    """
    return _open("cifar10", path, download)


def open_cifar100(path: str, *, download: bool = False) -> DatasetPair:
    """As many images of as many classes as the name says; else as `open_cifar10`."""
    return _open("cifar100", path, download)


def _open(name: str, path: str, download: bool) -> DatasetPair:
    from torchvision import datasets

    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        train = kind(path, train=True, download=download)
        val = kind(path, train=False, download=download)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if download:
            raise DataError(f"{path}: {name} cannot be fetched ({reason})") from error
        raise DataError(
            f"{path}: {name} is not there or damaged ({reason}); add --download to fetch it"
        ) from error
    images = _in_memory(train)
    mean, std = channel_statistics(images.images)
    return DatasetPair(
        uri=f"{name}:{path}",
        classes=tuple(train.classes),
        size=32,
        mean=mean,
        std=std,
        train=images,
        val=_in_memory(val),
    )


def _in_memory(dataset: Any) -> MemoryImages:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(images, torch.tensor(dataset.targets, dtype=torch.int64))
