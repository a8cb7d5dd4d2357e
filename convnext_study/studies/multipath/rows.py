"""The paper's comparison as rows to train: networks and recipes.

The paper's layer table and recipe are not available to us. The networks are our reconstruction of
what it states, and the recipes are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from convnext_study.data.sources import OF_IMAGES, check_labels
from convnext_study.errors import UserError, did_you_mean
from convnext_study.recipes import Recipe, get_recipe
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.multipath.spec import (
    BASIC,
    LARGE,
    LARGE_PATHS,
    SMALL,
    SMALL_EQUAL,
    MultipathSpec,
)

STUDY = "multipath-reconstruction"
NET, BASELINE = "multipath", "multipath-baseline"
REDUCTION = 4  # by which reduced networks are narrower; depths and modules stay
SIZE = 32  # of the images that the networks are designed for

# Usual for CIFAR at 32x32: the paper's own recipe is not available to us.
FULL = Recipe(
    name="cifar-usual",
    epochs=200,
    optimizer="sgd",
    lr=0.1,
    lr_base_size=128,
    global_batch_size=128,
    weight_decay=5e-4,
    weight_decay_1d=True,
    crop="random_crop",
    crop_pct=1.0,
    init="kaiming",
)
# Ours, for minutes on a laptop: with digits' few images it takes small batches to make enough steps
# (in 8 epochs `depths` reaches 97.8 % with 32 images per step, 83.4 % with 64 at FULL's rate; one
# seed).
REDUCED = FULL.model_copy(
    update={
        "name": "cifar-reduced",
        "epochs": 8,
        "lr_base_size": 32,
        "global_batch_size": 32,
        "warmup_epochs": 1.0,
    }
)
# The scans are 8x8: 16x16 loses nothing.
REDUCED_DIGITS = 16


@dataclass(frozen=True)
class ComparisonRow:
    """A network of the comparison, and the one that it is compared with.

    ``spec`` is the full-size network's; None for a baseline, which ``name`` identifies. ``adopted``
    rows form a sequence; the others are variants tried beside it.
    """

    name: str
    label: str
    section: str
    parent: str | None
    spec: MultipathSpec | None
    adopted: bool = True


_RECONSTRUCTION = {True: " (reconstruction)", False: " (reconstruction, 1/4 as wide)"}
_WIDEN, _ATTEND, _LARGER = "Widening", "Attention", "Large networks"
ROWS = (
    ComparisonRow("plain", "plain basic blocks", _WIDEN, None, BASIC.replace(width=16)),
    ComparisonRow("channels", "widened in channels", _WIDEN, "plain", BASIC, adopted=False),
    ComparisonRow("paths", "widened in paths, equal depths 2,2,3,3", _WIDEN, "plain", SMALL_EQUAL),
    ComparisonRow("depths", "different depths 1,2,3,4", _WIDEN, "paths", SMALL),
    *(
        ComparisonRow(
            f"{parent}_{kind}",
            f"{depths}, {word}",
            _ATTEND,
            parent,
            spec.replace(attention=kind),
            False,
        )
        for parent, depths, spec in (
            ("paths", "equal depths", SMALL_EQUAL),
            ("depths", "different depths", SMALL),
        )
        for kind, word in (("path", "path attention"), ("se", "SE"))
    ),
    ComparisonRow("large", "large: widened in channels", _LARGER, "depths", LARGE),
    ComparisonRow(
        "large_paths", "large: in paths 0..7, modules", _LARGER, "depths", LARGE_PATHS, False
    ),
    ComparisonRow("resnet18", "ResNet-18", "Baselines", None, None),
    ComparisonRow("se_resnet18", "SE-ResNet-18 (r = 16)", "Baselines", "resnet18", None),
)


def is_full(data: str, recipe: str | None = None) -> bool:
    """Whether networks of the paper's size are trained.

    ``recipe`` ``published`` means full size, ``small`` reduced; with any other, only CIFAR is full.
    """
    return recipe == "published" or (recipe != "small" and data.startswith("cifar"))


def runs_of(
    data: str,
    seeds: Iterable[int],
    recipe: str | None,
    changes: dict[str, Any],
    names: Collection[str] = (),
) -> list[Run]:
    """Every row for every seed, or those of ``names``. ``recipe`` is as in `is_full`, or a recipe's
    name or file.

    Raises RecipeError for an invalid recipe, UserError for data without class labels, and for a
    name that no row has.
    """
    check_labels(data, OF_IMAGES)
    full = is_full(data, recipe)
    # Baselines have one size only.
    rows = {row.name: row for row in ROWS if full or row.spec is not None}
    for name in names:
        if name not in rows:
            raise UserError(f"network {name!r}{did_you_mean(name, [*rows])}")
    fields = {name: value for name, value in changes.items() if value is not None}
    if not full and data == "digits":
        fields.setdefault("image_size", REDUCED_DIGITS)
    elif data.startswith("folder:"):
        fields.setdefault("image_size", SIZE)
    recipes = {None: FULL if full else REDUCED, "published": FULL, "small": REDUCED}
    base = recipes[recipe] if recipe in recipes else get_recipe(str(recipe))
    settings = base.replace(**fields).model_dump(mode="json")
    suffix = "" if full else "_quarter"
    return [
        Run(
            study=STUDY,
            name=row.name + suffix,
            model=_model(row, full),
            recipe=settings,
            data=data,
            seed=seed,
            metadata={
                "regime": "multipath",
                "row": row.name,
                "label": row.label,
                "order": order,
                "adopted": row.adopted,
                "parent": row.parent and row.parent + suffix,
                "section": row.section + (_RECONSTRUCTION[full] if row.spec else ""),
                "published": False,
            },
        )
        for seed in seeds
        for order, row in enumerate(rows.values())
        if row.name in (names or rows)
    ]


def _model(row: ComparisonRow, full: bool) -> ModelRef:
    if row.spec is None:
        return ModelRef(builder=BASELINE, args={"name": row.name})
    spec = row.spec if full else row.spec.replace(width=max(1, row.spec.width // REDUCTION))
    return ModelRef(builder=NET, args=without_defaults(spec.to_dict(), MultipathSpec().to_dict()))
