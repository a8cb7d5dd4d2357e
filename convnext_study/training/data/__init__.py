"""Data by URI: ``digits``, ``folder:PATH``, ``cifar10:PATH``.

Number of classes, image size and normalisation come from the data; the network is built to fit.
"""

from __future__ import annotations

from convnext_study.spec import nearest
from convnext_study.training.data.images import Data, DataError

__all__ = ["Data", "DataError", "open_data"]

SCHEMES = ("digits", "folder", "cifar10", "cifar100")


def open_data(uri: str, *, download: bool = False) -> Data:
    """Open a data set. Raises DataError, one line that names the path and what to do.

    Args:
        uri: ``digits``, or a scheme and a path.
        download: let ``cifar10:`` and ``cifar100:`` fetch what is not there.
    """
    scheme, _, path = uri.partition(":")
    if scheme == "digits":
        from convnext_study.training.data.digits import open_digits

        return open_digits()
    if scheme not in SCHEMES:
        raise DataError(f"data {uri!r}: unknown kind{nearest(scheme, list(SCHEMES))}")
    if not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    if scheme == "folder":
        from convnext_study.training.data.folder import open_folder

        return open_folder(path)
    from convnext_study.training.data.cifar import open_cifar

    return open_cifar(scheme, path, download=download)
