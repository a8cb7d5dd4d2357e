"""What several tests share."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from support.images import make_folder, picture


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def pack(folder: Path, tar: Path) -> None:
    with tarfile.open(tar, "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.add(file, str(file.relative_to(folder)))


def folder(root: Path) -> str:
    return f"timm:{make_folder(root)}"


def one_tar(root: Path) -> str:
    make_folder(root / "images")
    for part in ("train", "val"):
        pack(root / "images" / part, root / f"{part}.tar")
    return f"timm:{root}"


def tar_a_class(root: Path) -> str:
    make_folder(root / "images")
    for part in ("train", "validation"):
        (root / part).mkdir()
        for name in ("cat", "dog"):
            pack(
                root / "images" / part[:5].replace("valid", "val") / name,
                root / part / f"{name}.tar",
            )
    return f"timm:{root}"


def tars_in_a_tar(root: Path) -> str:
    inner = Path(tar_a_class(root).partition(":")[2])
    for part in ("train", "validation"):
        with tarfile.open(root / f"{part}-all.tar", "w") as archive:
            for file in sorted((inner / part).glob("*.tar")):
                archive.add(file, file.name)
    return f"timm:{root}?train=train-all&val=validation-all.tar"


def shards(root: Path, *, labels: str = "cls", missing: bool = False) -> str:
    """Two shards a part in WebDataset's layout, classes in turn."""
    for part, first in (("train", 0), ("val", 8)):
        for shard in range(2):
            with tarfile.open(root / f"set-{part}-{shard:03d}.tar", "w") as archive:
                for place in range(4):
                    seed = first + 4 * shard + place
                    file = io.BytesIO()
                    picture(seed).save(file, "JPEG")
                    add(archive, f"a/{seed:05d}.jpg", file.getvalue())
                    content = str(place % 2) if labels == "cls" else json.dumps({"y": place % 2})
                    if not (missing and place == 3):
                        add(archive, f"a/{seed:05d}.{labels}", content.encode())
    return f"timm:wds/{root}"


class HubReader:
    """What timm's reader for the Hugging Face hub offers, over two pictures a split."""

    label_key = "fine"

    def __init__(self, name: str, *, split: str, **options: str | None) -> None:
        assert (name, options["target_key"], options["input_key"]) == ("hfds/o/N", "fine", "image")
        self.first = {"train": 0, "test": 2}[split]
        self.dataset = {"fine": [1, 0]}
        self.class_to_idx = {"tree": 1, "sea": 0}

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        file = io.BytesIO()
        picture(self.first + index).save(file, "PNG")
        file.seek(0)
        return file, self.dataset["fine"][index]
