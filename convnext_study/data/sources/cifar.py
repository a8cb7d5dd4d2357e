"""``cifar10:PATH`` and ``cifar100:PATH``, through torchvision; downloaded only on request."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import torch

from convnext_study.data.dataset import DataError, DatasetPair, MemoryImages, channel_statistics
from convnext_study.data.sources import OpenRequest
from convnext_study.errors import first_line


def open_cifar(name: str, path: str, request: OpenRequest) -> DatasetPair:
    """50,000 training and 10,000 test images of 32x32, in memory (180 MB).

    Raises DataError if the files are missing, damaged or cannot be fetched.
    """
    from torchvision import datasets

    opener: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        train, val = (opener(path, train=flag, download=request.download) for flag in (True, False))
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        if request.download:
            raise DataError(f"{path}: {name} cannot be downloaded ({first_line(error)})") from error
        raise DataError(
            f"{path}: {name} is missing or damaged ({first_line(error)}); add --download to "
            "download it"
        ) from error
    images = _in_memory(train)
    mean, std = channel_statistics(images.images)
    return DatasetPair(tuple(train.classes), 32, images, _in_memory(val), mean, std)


open_cifar10, open_cifar100 = partial(open_cifar, "cifar10"), partial(open_cifar, "cifar100")


def _in_memory(dataset: Any) -> MemoryImages:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(images, torch.tensor(dataset.targets, dtype=torch.int64))
