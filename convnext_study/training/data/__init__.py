"""Data by URI: ``digits``, ``synthetic``, ``folder:PATH``, ``cifar10:PATH``, ``timm:NAME``.

Number of classes, image size and normalisation come from the data; the network is built to fit.
"""

from __future__ import annotations

from dataclasses import replace

from convnext_study.spec import nearest
from convnext_study.training.data.images import BadImages, Data, DataError, OnBadImage

__all__ = ["Data", "DataError", "open_data"]

SCHEMES = ("digits", "synthetic", "folder", "cifar10", "cifar100", "timm")
NEEDS_PATH = ("folder", "cifar10", "cifar100", "timm")


def open_data(uri: str, *, download: bool = False, bad_images: OnBadImage = "stop") -> Data:
    """Open a data set. Raises DataError, one line that names the path and what to do.

    Args:
        uri: ``digits``, ``synthetic`` or a scheme and what it needs; docs/data.md has them all.
        download: fetch a CIFAR or torchvision data set that is not there.
        bad_images: stop at an image that cannot be decoded, or take the next one of the data set
            in its place and record its name in ``data.bad``.
    """
    scheme, _, path = uri.partition(":")
    if scheme not in SCHEMES:
        raise DataError(f"data {uri!r}: unknown kind{nearest(scheme, list(SCHEMES))}")
    if scheme in NEEDS_PATH and not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    data = _open(scheme, path, download=download)
    return replace(data, uri=uri, bad=BadImages(bad_images))


def _open(scheme: str, path: str, *, download: bool) -> Data:
    if scheme == "digits":
        from convnext_study.training.data.digits import open_digits

        return open_digits()
    if scheme == "synthetic":
        from convnext_study.training.data.synthetic import open_synthetic

        return open_synthetic(path)
    if scheme == "folder":
        from convnext_study.training.data.folder import open_folder

        return open_folder(path)
    if scheme == "timm":
        from convnext_study.training.data.readers import open_timm

        return open_timm(path, download=download)
    from convnext_study.training.data.cifar import open_cifar

    return open_cifar(scheme, path, download=download)
