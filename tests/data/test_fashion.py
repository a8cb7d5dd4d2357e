"""Fashion-MNIST's files: read as they are packed, in part, and refused where they are damaged."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.images import make_fashion, refused

from convnext_study.data import fingerprint, open_data
from convnext_study.data.sources import SOURCES, split_uri
from convnext_study.experiments.data_identity import clear_cache, identify, size_if_missing
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import NANO


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Debian's package would have the files."""
    found = replace(SOURCES["fashion"], default_path=str(tmp_path / "debian"))
    monkeypatch.setitem(SOURCES, "fashion", found)
    clear_cache()
    return make_fashion(tmp_path / "debian")


def test_both_parts_are_drawn_up_in_three_channels(debian: Path) -> None:
    data = open_data("fashion")
    assert (len(data.train), len(data.val), data.num_classes, data.size) == (40, 20, 10, 32)
    assert (data.flips, data.val_groups) == (True, None)
    image, label = data.train.pixels(37)
    pixels = np.asarray(image)
    assert (label, pixels.shape, pixels[:, 0, 0].tolist()) == (7, (3, 32, 32), [37] * 3)
    stored = np.stack([np.asarray(data.train.pixels(index)[0]) for index in range(40)])
    assert data.mean == pytest.approx([stored.mean() / 255] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("inside", "packed"), [(".", True), (".", False), ("FashionMNIST/raw", False)]
)
def test_the_same_data_wherever_it_lies_and_however_it_is_packed(
    debian: Path, tmp_path: Path, inside: str, packed: bool
) -> None:
    make_fashion(tmp_path / "own" / inside, packed=packed)
    uris = "fashion", f"fashion:{tmp_path}/own"
    assert fingerprint(open_data(uris[0])) == fingerprint(open_data(uris[1]))
    first, second = (
        identify(roadmap_runs(NANO, NANO.variants()[:1], data=uri, seeds=[0]))[0] for uri in uris
    )
    assert first.key == second.key


def test_some_of_the_training_images(debian: Path, tmp_path: Path) -> None:
    data = open_data("fashion?train=23")
    assert (len(data.train), len(data.val)) == (23, 20)
    labels = torch.tensor([data.train.pixels(index)[1] for index in range(23)])
    assert labels.bincount().tolist() == [3] * 3 + [2] * 7
    grey = [np.asarray(data.train.pixels(index)[0])[0, 0, 0] for index in range(23)]
    assert grey == list(range(23))
    assert fingerprint(data) == fingerprint(open_data(f"fashion:{debian}?train=23"))
    assert len(open_data("fashion?train=40").train) == 40


def test_without_the_files_a_dry_run_counts_the_known_size(debian: Path, tmp_path: Path) -> None:
    assert size_if_missing("fashion") is None
    sizes, note = size_if_missing(f"fashion:{tmp_path}/gone") or pytest.fail()
    assert (sizes.train, sizes.val, "not there" in note) == (60_000, 10_000, True)


def test_a_uri_is_taken_apart_where_its_kind_has_options() -> None:
    assert split_uri("fashion?train=5") == ("fashion", "", "train=5")
    assert split_uri("fashion:/a?train=5") == ("fashion", "/a", "train=5")
    assert split_uri("folder:/a?b") == ("folder", "/a?b", "")
    assert split_uri("timm:hfds/a?val=b") == ("timm", "hfds/a", "val=b")
    assert split_uri("digits?a").scheme == "digits"


@pytest.mark.parametrize("given", ["train=9", "train=41", "train=x", "train=-20", "test=5"])
def test_options_that_cannot_be(debian: Path, given: str) -> None:
    refused(f"fashion?{given}", "train")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    refused(f"fashion:{tmp_path}", "apt install dataset-fashion-mnist")
    make_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    refused(f"fashion:{tmp_path}", r"t10k-labels-idx1-ubyte\.gz: cannot be read")


def _write(root: Path, magic: int, *counts: int, content: bytes = b"") -> None:
    header = np.array([magic, *counts], dtype=">u4").tobytes()
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: _write(root, 0x802, 20, content=bytes(20)),
        lambda root: _write(root, 0x801, 2**31, content=bytes(20)),
        lambda root: _write(root, 0x801, 21, content=bytes(20)),
        lambda root: _write(root, 0x801, 19, content=bytes(20)),
        lambda root: _write(root, 0x801, 19, content=bytes(19)),
        lambda root: _write(root, 0x801, 20, content=bytes([10] * 20)),
        lambda root: _write(root, 0x801),
        lambda root: (root / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip"),
        lambda root: (root / "t10k-labels-idx1-ubyte.gz").write_bytes(b""),
        lambda root: (root / "t10k-images-idx3-ubyte.gz").write_bytes(
            (root / "t10k-images-idx3-ubyte.gz").read_bytes()[:-20]
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Any) -> None:
    damage(make_fashion(tmp_path))
    refused(f"fashion:{tmp_path}", r"t10k")


def test_what_is_fetched_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, *, download: bool) -> None:
        assert download
        make_fashion(Path(root) / "FashionMNIST" / "raw", packed=False)

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fetch)
    assert len(open_data(f"fashion:{tmp_path}", download=True).train) == 40
