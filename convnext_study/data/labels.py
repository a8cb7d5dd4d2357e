"""With what a data set's images are labelled, by its URI (no torch here)."""

from __future__ import annotations

from convnext_study.data.dense import DENSE_SOURCES
from convnext_study.data.pose import POSE_SOURCE
from convnext_study.data.sources import SOURCES, split_uri
from convnext_study.errors import UserError

OF_IMAGES, OF_PIXELS, JOINTS = "a class for every image", "a class for every pixel", "joints"
# What the URIs of each kind look like, by their schemes.
USAGE: dict[str, dict[str, str]] = {
    OF_IMAGES: {scheme: source.usage for scheme, source in SOURCES.items()},
    OF_PIXELS: {scheme: source.usage for scheme, source in DENSE_SOURCES.items()},
    JOINTS: {POSE_SOURCE: f"{POSE_SOURCE}:PATH"},
}


def has_place(uri: str) -> bool:
    """Whether data of this package lies somewhere, and is not known by its URI alone."""
    scheme = split_uri(uri).scheme
    if source := SOURCES.get(scheme):
        return source.has_place
    dense = DENSE_SOURCES.get(scheme)
    return scheme == POSE_SOURCE or (dense is not None and dense.needs_path)


def wrong_labels(uri: str, wanted: str) -> str | None:
    """One line for data with other labels than ``wanted``; None where they fit, or are unknown."""
    scheme = split_uri(uri).scheme
    known = USAGE[wanted]
    if scheme in known:
        return None
    has = next((labels for labels, schemes in USAGE.items() if scheme in schemes), None)
    if has is None:
        return None
    return f"data {uri!r}: has {has}, and {wanted} is needed; use {', '.join(known.values())}"


def check_labels(uri: str, wanted: str) -> None:
    """Raises UserError, one line that names the right data, where `wrong_labels` has one."""
    if said := wrong_labels(uri, wanted):
        raise UserError(said)
