"""What a run recorded of its data: which data it was, wherever it lies, and what differs (no torch
here).

A fingerprint is what `data.fingerprint` makes: plain values that tell data from other data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from convnext_study.runs.records import Record

PARENT = "starts_from"  # in a run's fingerprint: the digest of the weights that it starts from
RECORDED = ("were recorded", "recorded")
# Kinds of digests, the most telling first, and what it means that one is another.
_KINDS = {
    "names": "under other names",
    "labels": "with other labels",
    "sizes": "of other sizes in bytes: files were replaced or cut",
    "content": "with other pixels",
}


def digest_of_data(fingerprint: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a fingerprint, without what it says of a parent."""
    data = {name: value for name, value in fingerprint.items() if name != PARENT}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def fingerprint_of(record: Record) -> dict[str, Any]:
    """What a run recorded of its data; nothing before it has begun."""
    return dict(record.manifest.get("data") or {})


def data_of(record: Record) -> str:
    """Which data a run was trained on: two runs with the same are on the same data, unchanged."""
    run, recorded = record.run, fingerprint_of(record)
    if run.data_id is not None or not recorded:
        return run.data_identity
    return f"{run.data}#{digest_of_data(recorded)}"


def difference(
    before: Mapping[str, Any], now: Mapping[str, Any], than: tuple[str, str] = RECORDED
) -> str:
    """What differs first between two fingerprints, in words; nothing where they are of the same
    data. What only one of them has is not compared. ``than`` says what ``before`` is."""
    were, recorded = than
    parts = [(name, before.get(name, {}), now.get(name, {})) for name in ("train", "val")]
    for name, its, mine in parts:
        if _differ(its, mine, "images"):
            return f"{name} holds {mine['images']:,} images, {its['images']:,} {were}"
    if _differ(before, now, "classes"):
        return f"the data has {now['classes']} classes, {before['classes']} {were}"
    if _differ(before, now, "class_names"):
        return f"the classes have other names than {recorded}"
    for kind, words in _KINDS.items():
        for name, its, mine in parts:
            if _differ(its, mine, kind):
                return f"{name} holds {mine['images']:,} images as {recorded}, but {words}"
    return ""


def _differ(before: Mapping[str, Any], now: Mapping[str, Any], kind: str) -> bool:
    return kind in before and kind in now and before[kind] != now[kind]
