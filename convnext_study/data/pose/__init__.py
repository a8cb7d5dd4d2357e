"""People with their joints: ``mpii:PATH``. torch is imported when data is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convnext_study.data.dataset import OnCorruptImage
    from convnext_study.data.pose.people import PoseData

__all__ = ["POSE_SOURCE", "open_pose"]

POSE_SOURCE = "mpii"


def open_pose(uri: str, *, corrupt_images: OnCorruptImage = "stop") -> PoseData:
    """Open a data set of people. Raises DataError, one line that names the path and what to do.

    Args:
        uri: ``mpii:PATH``.
        corrupt_images: stop at an image that is missing or cannot be decoded, or take the next
            person in its place and record its name in ``data.corrupt``.
    """
    from convnext_study.data.dataset import CorruptImages, DataError
    from convnext_study.data.pose.mpii import open_mpii

    scheme, _, path = uri.partition(":")
    if scheme != POSE_SOURCE or not path:
        raise DataError(f"data {uri!r}: people with joints are read as mpii:PATH")
    data = open_mpii(path)
    for part in (data.train, data.val):
        part.check_images(corrupt_images)
    return replace(data, uri=uri, corrupt=CorruptImages(corrupt_images))
