"""Recipes for ImageNet with less than the paper's compute, each with its source.

None is the paper's, and accuracies of two of them do not compare. Each trains both families of a
road's rows, the first with torchvision's optimizer and the others with the paper's. A forward pass
of MACs that grow with the area of the image has (side / 224)^2 of the cost.
"""

from typing import Any, NamedTuple

from convnext_study.recipes.recipe import Recipe


class Cheap(NamedTuple):
    """What a recipe sets in both families, and in each; ``source`` says where that is from."""

    name: str
    source: str
    both: dict[str, Any]
    modern: dict[str, Any]
    classic: dict[str, Any]


_PLAIN = {
    "rand_augment": None,
    "color_jitter": 0.0,
    "random_erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "drop_path": 0.0,
}


def _progressive(epochs: int, early: int) -> Cheap:
    return Cheap(
        f"progressive-{epochs}",
        f"{epochs} epochs, {early} of them at 160 pixels and the rest at 192: the sizes of FFCV's "
        f"rn50_{epochs}_epochs (Leclerc et al., 2023), with crop and flip alone",
        {
            "epochs": epochs,
            "image_size": 192,
            "early_image_size": 160,
            "early_epochs": early,
            "global_batch_size": 1024,
        },
        {**_PLAIN, "warmup_epochs": 2},
        {"milestones": (epochs // 3, 2 * epochs // 3)},
    )


CHEAP = (
    Cheap(
        "a3",
        "100 epochs at 160 pixels, regularised as in A3 of ResNet Strikes Back (Wightman et al., "
        "2021), without its LAMB, binary cross entropy and repeated augmentation",
        {"image_size": 160, "crop_pct": 0.95},
        {
            "epochs": 100,
            "warmup_epochs": 5,
            "global_batch_size": 2048,
            "weight_decay": 0.02,
            "rand_augment": "rand-m6-mstd0.5-inc1",
            "random_erasing": 0.0,
            "mixup": 0.1,
            "label_smoothing": 0.0,
            "drop_path": 0.0,
        },
        {"epochs": 30, "milestones": 10},
    ),
    _progressive(40, 31),
    _progressive(16, 12),
    Cheap(
        "96",
        "30 epochs at 96 pixels in batches of 1,024, with 2 of warm-up or drops at 10 and 20, else "
        "as published: the plan of ablations/imagenet_96.py",
        {"epochs": 30, "image_size": 96, "global_batch_size": 1024},
        {"warmup_epochs": 2},
        {"milestones": (10, 20)},
    ),
)


def cheap_recipes(modern: Recipe, classic: Recipe) -> dict[str, Recipe]:
    """All of them, by their names: ``modern-a3``, ``classic-a3`` and so on."""
    found = {}
    for one in CHEAP:
        for base, own in ((modern, one.modern), (classic, one.classic)):
            name = f"{base.name}-{one.name}"
            found[name] = base.model_copy(update={"name": name, **one.both, **own})
    return found
