"""Data by URI: ``digits``, ``synthetic``, ``folder:PATH``, ``cifar10:PATH``, ``timm:NAME``.

Number of classes, image size and normalisation come from the data; the network is built to fit.
"""

from __future__ import annotations

from dataclasses import replace

from convnext_study.data.dataset import CorruptImages, DataError, DatasetPair, OnCorruptImage
from convnext_study.errors import did_you_mean

__all__ = ["DataError", "DatasetPair", "open_data"]

SCHEMES = ("digits", "synthetic", "folder", "cifar10", "cifar100", "timm")
NEEDS_PATH = ("folder", "cifar10", "cifar100", "timm")


def open_data(
    uri: str, *, download: bool = False, corrupt_images: OnCorruptImage = "stop"
) -> DatasetPair:
    """Open a data set. Raises DataError, one line that names the path and what to do.

    Args:
        uri: ``digits``, ``synthetic`` or a scheme and what it needs; docs/data.md has them all.
        download: fetch a CIFAR or torchvision data set that is not there.
        corrupt_images: stop at an image that cannot be decoded, or take the next one of the data
            set in its place and record its name in ``data.bad``.
    """
    scheme, _, path = uri.partition(":")
    if scheme not in SCHEMES:
        raise DataError(f"data {uri!r}: unknown kind{did_you_mean(scheme, list(SCHEMES))}")
    if scheme in NEEDS_PATH and not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    data = _open(scheme, path, download=download)
    return replace(data, uri=uri, corrupt=CorruptImages(corrupt_images))


def _open(scheme: str, path: str, *, download: bool) -> DatasetPair:
    if scheme == "digits":
        from convnext_study.data.sources.digits import open_digits

        return open_digits()
    if scheme == "synthetic":
        from convnext_study.data.sources.synthetic import open_synthetic

        return open_synthetic(path)
    if scheme == "folder":
        from convnext_study.data.sources.folder import open_folder

        return open_folder(path)
    if scheme == "timm":
        from convnext_study.data.sources.timm_datasets import open_timm

        return open_timm(path, download=download)
    from convnext_study.data.sources.cifar import open_cifar

    return open_cifar(scheme, path, download=download)
