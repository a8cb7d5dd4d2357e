"""What tells a data set from a changed one: every source has it, and says what differs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.data_timm import HubReader, one_tar, shards, tar_a_class, tars_in_a_tar
from support.images import make_cifar, make_folder, picture
from support.runs import make_tiny_run
from support.several import train_in

from convnext_study.data import check_same, fingerprint, open_data
from convnext_study.data.dataset import DataError
from convnext_study.data.sources.timm_readers import digests_of_rows
from convnext_study.runs.folder import RunFolder
from convnext_study.training.build import build_train_state
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks import base


def of(uri: str) -> dict[str, Any]:
    """The fingerprint as a record would give it back."""
    found: dict[str, Any] = json.loads(json.dumps(fingerprint(open_data(uri))))
    return found


@pytest.mark.parametrize("make", [one_tar, tar_a_class, tars_in_a_tar, shards])
def test_archives_are_known_by_what_they_hold(tmp_path: Path, make: Callable[[Path], str]) -> None:
    found = of(make(tmp_path))
    train, val = found["train"], found["val"]
    assert train["images"] == val["images"] == 8
    assert train.keys() == {"images", "names", "labels", "sizes"}
    assert train["sizes"] != val["sizes"]


def remove(root: Path) -> None:
    for file in (root / "train").rglob("[12].jpg"):
        file.unlink()


def add(root: Path) -> None:
    picture(99).save(root / "val" / "dog" / "9.jpg")


def rename(root: Path) -> None:
    (root / "train" / "cat" / "2.jpg").rename(root / "train" / "cat" / "2b.jpg")


def move(root: Path) -> None:
    """The same names with other labels: what differs first is in which folder they are."""
    (root / "val" / "cat" / "3.jpg").rename(root / "val" / "dog" / "4.jpg")


def cut(root: Path) -> None:
    file = root / "val" / "dog" / "0.jpg"
    file.write_bytes(file.read_bytes()[:-1])


def add_class(root: Path) -> None:
    for part in ("train", "val"):
        (root / part / "wolf").mkdir()
        (root / part / "dog" / "3.jpg").rename(root / part / "wolf" / "3.jpg")


def rename_class(root: Path) -> None:
    for part in ("train", "val"):
        (root / part / "dog").rename(root / part / "wolf")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (remove, "train has 4 images, 8 were recorded"),
        (add, "val has 9 images, 8 were recorded"),
        (add_class, "the data has 3 classes, 2 were recorded"),
        (rename_class, "the classes have other names than recorded"),
        (rename, "train has 8 images as recorded, but under other names"),
        (move, "val has 8 images as recorded, but under other names"),
        (cut, "val has 8 images as recorded, but of other sizes in bytes"),
    ],
)
def test_what_changed_is_named(tmp_path: Path, change: Callable[[Path], None], says: str) -> None:
    root = make_folder(tmp_path)
    uris = [f"folder:{root}", f"timm:{root}", f"timm:torch/image_folder?root={root}"]
    before = [of(uri) for uri in uris]
    change(root)
    for uri, recorded in zip(uris, before, strict=True):
        with pytest.raises(DataError) as caught:
            check_same(recorded, of(uri), "runs/a")
        assert str(caught.value).startswith(f"runs/a: {says}")
        assert str(caught.value).endswith("; restore the data, or choose another --out")
        assert "\n" not in str(caught.value)


# Data in memory


def test_synthetic_data_differ_by_what_was_requested() -> None:
    found = [of(f"synthetic:{text}") for text in ("4,16,100", "4,8,100", "5,16,100", "4,16,101")]
    contents = [one[part]["content"] for one in found for part in ("train", "val")]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("cifar10:{}", "val has 10 images as recorded, but with other pixels"),
        ("timm:torch/cifar10?root={}", "val has 10 images as recorded, but with other pixels"),
        ("digits", "val has 787 images as recorded, but with other labels"),
        ("timm:hfds/o/N?val=test&label=fine", "val has 2 images as recorded, but with other la"),
    ],
)
def test_one_pixel_or_label_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, says: str
) -> None:
    make_cifar(tmp_path, monkeypatch, "cifar10")
    if "hfds" in uri:
        monkeypatch.setattr("timm.data.readers.create_reader", HubReader)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "datasets" or None)
    before, data = of(uri.format(tmp_path)), open_data(uri.format(tmp_path))
    for fields in ({}, {"val": {"images": len(data.val)}}):  # what only one has is not compared
        check_same(fields, before, "here")
    held: Any = data.val
    if "pixels" in says:
        pixels = held.images if hasattr(held, "images") else held._dataset.data
        pixels[0, 0, 0, 0] ^= 1
    else:
        held.labels[0] = (held.labels[0] + 1) % 2
    with pytest.raises(DataError, match=says):
        check_same(before, fingerprint(data), "here")


# Hugging Face's


def test_rows_that_name_files_are_those_files_wherever_they_are(tmp_path: Path) -> None:
    def rows(root: Path) -> dict[str, str]:
        names = sorted(str(path) for path in (root / "train").rglob("*.jpg"))
        return digests_of_rows(names, [None] * len(names))

    make_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two" / "deeper")
    before = rows(tmp_path / "one")
    assert rows(tmp_path / "two" / "deeper") == before
    file = tmp_path / "one" / "train" / "cat" / "0.jpg"
    file.write_bytes(file.read_bytes() + b"1")
    changed = rows(tmp_path / "one")
    assert (changed["names"], changed["sizes"] == before["sizes"]) == (before["names"], False)
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        digests_of_rows([str(file), str(tmp_path / "gone.jpg")], [None, None])


def test_rows_that_hold_images_need_no_files() -> None:
    before = digests_of_rows(["a.png", None], [10, 20])
    assert digests_of_rows(["a.png", None], [10, 21])["sizes"] != before["sizes"]
    assert digests_of_rows(["b.png", None], [10, 20])["names"] != before["names"]


# A run


def test_a_run_keeps_to_its_data(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", count=6)
    run = make_tiny_run(epochs=1, global_batch_size=4)
    run = run.model_copy(update={"data": f"folder:{root}"})

    def start() -> None:
        with RunFolder(tmp_path / "run", run) as folder:
            build_train_state(run, folder, Runtime(), lambda: False)

    start()
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert recorded == of(run.data)
    start()
    for file in (root / "train").rglob("[0-3].jpg"):
        file.unlink()
    with pytest.raises(DataError, match=f"^{tmp_path}/run: train has 4 images, 12 were recorded"):
        start()


def see_other_data(rank: int) -> None:
    def changed(data: Any) -> Any:
        return {**fingerprint(data), "val": {"images": 786}}

    if rank == 1:
        setattr(base, "fingerprint", changed)  # noqa: B010


def test_processes_that_see_other_data_end_the_run(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    (code, _), (second, errors) = train_in(2, run, (tmp_path, None), before=see_other_data)
    assert code != 0 and second != 0
    says = "this process sees other data than the first process: val has 786 images, 787 were"
    assert f"{tmp_path}: {says} recorded" in errors
