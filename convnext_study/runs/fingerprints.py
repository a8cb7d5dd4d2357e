"""The recorded fingerprints of data: which data a run used, and what differs (no torch here).

A fingerprint is made by `data.fingerprint`: plain values that identify data, whatever its path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from convnext_study.runs.records import Record

PARENT = "starts_from"  # in a run's fingerprint: the digest of its parent's weights
RECORDED = ("were recorded", "recorded")
# Kinds of digests, the most informative first, and what a difference means.
_KINDS = {
    "names": "under other names",
    "labels": "with other labels",
    "sizes": "of other sizes in bytes: files were replaced or truncated",
    "content": "with other pixels",
}


def digest_of_data(fingerprint: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a fingerprint, without its parent's digest."""
    data = {name: value for name, value in fingerprint.items() if name != PARENT}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def fingerprint_of(record: Record) -> dict[str, Any]:
    """The fingerprint of a run's data; empty before the run has begun."""
    return dict(record.manifest.get("data") or {})


def data_of(record: Record) -> str:
    """An identity of a run's data: equal for two runs on the same, unchanged data."""
    run, recorded = record.run, fingerprint_of(record)
    if run.data_id is not None or not recorded:
        return run.data_identity
    return f"{run.data}#{digest_of_data(recorded)}"


def difference(
    before: Mapping[str, Any], now: Mapping[str, Any], than: tuple[str, str] = RECORDED
) -> str:
    """The first difference between two fingerprints, in words; empty if they are of the same data.
    Fields that only one has are not compared. ``than`` is the wording for ``before``."""
    were, recorded = than
    parts = [(name, before.get(name, {}), now.get(name, {})) for name in ("train", "val")]
    for name, old, new in parts:
        if _differ(old, new, "images"):
            return f"{name} has {new['images']:,} images, {old['images']:,} {were}"
    if _differ(before, now, "classes"):
        return f"the data has {now['classes']} classes, {before['classes']} {were}"
    if _differ(before, now, "class_names"):
        return f"the classes have other names than {recorded}"
    for kind, meaning in _KINDS.items():
        for name, old, new in parts:
            if _differ(old, new, kind):
                return f"{name} has {new['images']:,} images as {recorded}, but {meaning}"
    return ""


def _differ(before: Mapping[str, Any], now: Mapping[str, Any], kind: str) -> bool:
    return kind in before and kind in now and before[kind] != now[kind]
