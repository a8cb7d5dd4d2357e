"""What tells a data set from a changed one: every source has it, and says what differs."""

import json
import os
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


FILES = {
    "folder": lambda root: f"folder:{make_folder(root)}",
    "timm folder": lambda root: f"timm:{make_folder(root)}",
    "torch folder": lambda root: f"timm:torch/image_folder?root={make_folder(root)}",
    "tar": one_tar,
    "tar a class": tar_a_class,
    "tars in a tar": tars_in_a_tar,
    "shards": shards,
}


@pytest.mark.parametrize("kind", FILES)
def test_the_same_files_elsewhere_are_the_same_data(tmp_path: Path, kind: str) -> None:
    make: Callable[[Path], str] = FILES[kind]
    (tmp_path / "one").mkdir()
    uri = make(tmp_path / "one")
    before = of(uri)
    assert before["train"]["images"] == before["val"]["images"] == 8
    assert set(before["train"]) == {"images", "names", "labels", "sizes"}
    # Its parts differ in what they hold, and their digests say so.
    assert before["train"]["sizes"] != before["val"]["sizes"]
    shutil.move(tmp_path / "one", tmp_path / "another")
    after = of(uri.replace(str(tmp_path / "one"), str(tmp_path / "another")))
    assert after == before
    check_same(before, after, "here")


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
        (remove, "train holds 4 images, 8 were recorded"),
        (add, "val holds 9 images, 8 were recorded"),
        (add_class, "the data has 3 classes, 2 were recorded"),
        (rename_class, "the classes have other names than recorded"),
        (rename, "train holds 8 images as recorded, but under other names"),
        (move, "val holds 8 images as recorded, but under other names"),
        (cut, "val holds 8 images as recorded, but of other sizes in bytes"),
    ],
)
def test_what_changed_is_told_in_one_line(
    tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
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


def test_counts_are_in_thousands_and_come_before_all_else() -> None:
    before = {"classes": 2, "train": {"images": 1200, "names": "a"}, "val": {"images": 10}}
    after = {"classes": 3, "train": {"images": 1200, "names": "b"}, "val": {"images": 1100}}
    with pytest.raises(DataError, match="val holds 1,100 images, 10 were recorded"):
        check_same(before, after, "here")
    after["val"] = {"images": 10, "content": "c"}
    with pytest.raises(DataError, match="3 classes, 2 were recorded"):
        check_same(before, after, "here")


def test_what_only_one_of_them_has_is_not_compared() -> None:
    full = of("digits")
    check_same({}, full, "here")
    check_same({"train": {"images": 1010}}, full, "here")
    with pytest.raises(DataError):
        check_same({"train": {"images": 1196}}, full, "here")


# Data in memory


def test_synthetic_data_differ_by_what_was_requested() -> None:
    found = [of(f"synthetic:{text}") for text in ("4,16,100", "4,8,100", "5,16,100", "4,16,101")]
    contents = [one[part]["content"] for one in found for part in ("train", "val")]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize("uri", ["cifar10:{}", "timm:torch/cifar10?root={}"])
def test_a_pixel_of_cifar_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    make_cifar(tmp_path, monkeypatch, "cifar10")
    before, data = of(uri.format(tmp_path)), open_data(uri.format(tmp_path))
    assert before == fingerprint(data)
    assert set(before["train"]) == {"images", "content", "labels"}
    held: Any = data.val
    pixels = held.images if hasattr(held, "images") else held._dataset.data
    pixels[0, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match="val holds 10 images as recorded, but with other pixels"):
        check_same(before, fingerprint(data), "here")


def test_labels_of_digits_tell() -> None:
    data = open_data("digits")
    before = fingerprint(data)
    held: Any = data.train
    held.labels[3] = (held.labels[3] + 1) % 10
    with pytest.raises(DataError, match="1,010 images as recorded, but with other labels"):
        check_same(before, fingerprint(data), "here")


# Hugging Face's


def test_labels_of_a_set_of_the_hub_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.data.readers.create_reader", HubReader)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "datasets" or None)
    data = open_data("timm:hfds/o/N?val=test&label=fine")
    before = fingerprint(data)
    assert before["train"]["images"] == 2
    held: Any = data.val
    held.labels[0] = 0
    with pytest.raises(DataError, match="val holds 2 images as recorded, but with other labels"):
        check_same(before, fingerprint(data), "here")


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
    assert digests_of_rows(["a.png", None], [10, 20]) == before
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
    with pytest.raises(DataError, match=f"^{tmp_path}/run: train holds 4 images, 12 were recorded"):
        start()
    for index in range(4):
        for name in ("cat", "dog"):
            os.link(root / "val" / name / "0.jpg", root / "train" / name / f"{index}.jpg")
    with pytest.raises(DataError, match="train holds 12 images as recorded, but of other sizes"):
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
    says = "this process sees other data than the first one: val holds 786 images, 787 were"
    assert f"{tmp_path}: {says} recorded" in errors
