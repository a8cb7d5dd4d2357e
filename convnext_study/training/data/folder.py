"""``folder:PATH``: a folder with ``train/`` and ``val/``, and in each a folder for every class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from convnext_study.training.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Data,
    DataError,
)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SIZE = 224


@dataclass(frozen=True)
class FileImages:
    """Images read from files when asked for."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.paths[index]), self.labels[index]


def read_image(path: Path) -> Image.Image:
    """An RGB image. Raises DataError that names the file where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: not a readable image ({_reason(error)}); repair or remove it"
        ) from error


def open_folder(path: str) -> Data:
    """Class folders under ``train/`` and ``val/``. Raises DataError naming the path at fault."""
    root = Path(path).expanduser()
    parts = {name: root / name for name in ("train", "val")}
    for part in (root, *parts.values()):
        if not part.is_dir():
            raise DataError(f"{part}: no such folder; folder:PATH needs PATH/train and PATH/val")
    classes = {name: _class_names(part) for name, part in parts.items()}
    if classes["train"] != classes["val"]:
        only = sorted(set(classes["train"]) ^ set(classes["val"]))
        raise DataError(
            f"{root}: train and val hold different classes; only in one of them: "
            f"{', '.join(only[:8])}{' ...' if len(only) > 8 else ''}"
        )
    train = _list_images(parts["train"], classes["train"])
    val = _list_images(parts["val"], classes["val"])
    return Data(
        uri=f"folder:{path}",
        classes=classes["train"],
        size=SIZE,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=train,
        val=val,
    )


def _class_names(part: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in part.iterdir() if entry.is_dir()))
    if not names:
        raise DataError(f"{part}: holds no class folders; put the images of each class in one")
    return names


def _list_images(part: Path, classes: tuple[str, ...]) -> FileImages:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(file for file in (part / name).rglob("*") if file.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{part / name}: holds no images ({', '.join(sorted(SUFFIXES))})")
        paths += found
        labels += [label] * len(found)
    return FileImages(tuple(paths), tuple(labels))


def _reason(error: BaseException) -> str:
    # PIL's messages repeat the path; what is left is the kind of trouble.
    return type(error).__name__ if "cannot identify" in str(error) else str(error).splitlines()[0]
