"""The networks that are compared, and their runs on some data.

The arms are the paper's, and three controls of ours: smaller and larger networks with one exit,
random masks, and exits for training only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from convnext_study.data.sources import JOINTS, OF_PIXELS, check_labels, usages
from convnext_study.errors import UserError, did_you_mean
from convnext_study.recipes import Recipe, get_recipe
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef, Run, TaskRef
from convnext_study.studies.anytime.spec import BATCHNORM_MOMENTUM, HRNETS, AnytimeSpec, published

STUDY = BUILDER = TASK = "anytime"
SIGNS, CANVAS, CITYSCAPES, MPII = "digit-signs", "digit-canvas", "cityscapes", "mpii"
DEMONSTRATED = ("plain", "ee", "rh", "ca", "random")  # arms on signs: the paper's, and one control
POSE_TASK, POSE_BACKBONE = "anytime-pose", "hrnet_w32"
AUXILIARY = 0.4  # weight of exits for training only, as in PSPNet (Zhao et al., 2017)
BACKGROUND = 0.5  # weight of the canvases' background in the loss

SMALL_STEPS, WARMUP = 375, 1 / 6  # of the small recipe; the share that is warmup
# Ours, for minutes on a laptop.
SMALL = Recipe(
    name="anytime-small",
    epochs=3,  # of 2,000 images: see `small_recipe`
    optimizer="adamw",
    lr=5e-3,
    lr_base_size=16,
    global_batch_size=16,
    weight_decay=0.01,
    warmup_epochs=0.5,
    crop="none",
    clip_grad=1.0,
    init="kaiming",
)
# For signs, which have four times the pixels; tuned on `digit-signs:tune`.
SMALL_ON_SIGNS = SMALL.model_copy(
    update={"name": "anytime-signs", "lr": 1e-2, "lr_base_size": 8, "global_batch_size": 8}
)

# By HRNet's authors for MPII (Sun et al., 2019), who use Adam: without decay AdamW is the same.
POSE = Recipe(
    name="anytime-pose",
    epochs=210,
    optimizer="adamw",
    lr=1e-3,
    lr_base_size=128,
    global_batch_size=128,
    weight_decay=0.0,
    schedule="step",
    milestones=(170, 200),
    crop="none",
)


@dataclass(frozen=True)
class AnytimeArm:
    """A network of the comparison.

    ``label``, ``section`` and ``parent``, the arm that it is compared with, are for the table;
    ``spec`` are fields of `AnytimeSpec`; ``exit_weights`` weight the exits' losses; ``shares_of``
    is the arm whose shares its random masks take; ``adopted``, whether the next arm extends it.
    """

    name: str
    label: str
    section: str
    parent: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    task: str = TASK
    exit_weights: tuple[float, ...] | None = None
    shares_of: str | None = None
    adopted: bool = True


_ONE, _SEVERAL = "One exit", "Several exits: the mean of their mIoU"
_WITH_EXITS = (
    AnytimeArm(
        "deep",
        "one exit, deep supervision",
        _ONE,
        "plain",
        {"heads": "original"},
        task="anytime-deep-supervision",
        exit_weights=(*[AUXILIARY] * 3, 1.0),
        adopted=False,
    ),
    AnytimeArm("ee", "early exits (EE)", _SEVERAL, None, {"heads": "original"}),
    AnytimeArm("rh", "EE, redesigned heads (RH)", _SEVERAL, "ee"),
    AnytimeArm("ca", "RH, confidence adaptivity (CA)", _SEVERAL, "rh", {"masks": "confidence"}),
    AnytimeArm(
        "random",
        "RH, random masks at CA's shares",
        _SEVERAL,
        "ca",
        {"masks": "random", "random_shares": [1.0, 1.0, 1.0]},  # until it has CA's
        task="anytime-random-masks",
        shares_of="ca",
        adopted=False,
    ),
)
HEATMAPS = {"masks": "heatmap", "threshold": 0.05}  # confidence for joints; ours
# A backbone's smaller and larger relatives.
RELATIONS = {
    "hrnet_digits": {"narrow": "hrnet_digits_narrow", "wide": "hrnet_digits_wide"},
    "hrnet_w18_small_v2": {"wide": "hrnet_w48"},
}


def has_joints(data: str) -> bool:
    """Whether the data is people with joints, for which the arms are ours."""
    return data.partition(":")[0] in usages(JOINTS)


def arms_of(backbone: str, *, joints: bool = False) -> tuple[AnytimeArm, ...]:
    """The arms on a backbone, with a short one-exit network where it has no smaller relative; for
    joints one exit, EE, RH and CA."""

    def plain(size: str, note: str, parent: str | None = "plain", **spec: Any) -> AnytimeArm:
        name, label = f"plain{size}", f"one exit{note}"
        return AnytimeArm(name, label, _ONE, parent, spec, adopted=parent is None)

    relations = RELATIONS.get(backbone, {})
    baselines = [
        plain(f"_{size}", f", {size}", exits=[4], backbone=relation)
        for size, relation in relations.items()
    ]
    if "narrow" not in relations:
        baselines.append(plain("_short", ", after two stages", exits=[2], heads="original"))
    one_exit = plain("", "", None, exits=[4])
    if not joints:
        return (one_exit, *baselines, *_WITH_EXITS)
    arms = {arm.name: replace(arm, task=POSE_TASK) for arm in (one_exit, *_WITH_EXITS)}
    return (arms["plain"], arms["ee"], arms["rh"], replace(arms["ca"], spec=HEATMAPS))


def runs_of(
    data: str,
    seeds: Iterable[int],
    recipe: str | None = None,
    changes: Mapping[str, Any] | None = None,
    backbones: Sequence[str] = (),
) -> list[Run]:
    """Every arm on every backbone for every seed.

    Args:
        data: URI; of pixels with a class, or of people with joints.
        seeds: one run of every arm for each.
        recipe: ``published``, ``small``, or a recipe's name or file. (default: published on
            Cityscapes and MPII, small elsewhere)
        changes: fields of the recipe.
        backbones: as in `AnytimeSpec`. (default: our small network; on Cityscapes the authors'
            smaller one, on MPII that of HRNet's authors)

    Raises UserError, one line, for other data, for an invalid recipe or backbone, and for missing
    data where the small recipe needs its size.
    """
    scheme, joints = data.partition(":")[0], has_joints(data)
    if not joints:
        check_labels(data, OF_PIXELS)
        if scheme not in usages(OF_PIXELS):
            hint = did_you_mean(scheme, [*usages(OF_PIXELS), *usages(JOINTS)])
            raise UserError(f"data {data!r}: unknown kind{hint}")
    for backbone in backbones:
        _check_backbone(backbone)
    defaults = {CITYSCAPES: str(published()["backbone"]["w18"]["timm"]), MPII: POSE_BACKBONE}
    names = tuple(backbones) or (defaults.get(scheme, AnytimeSpec().backbone),)
    if recipe is None:
        recipe = "published" if scheme in defaults else "small"
    if recipe == "small":
        base = small_recipe(data, changes)
    elif recipe == "published":
        base = POSE if joints else published_recipe()
    else:
        base = get_recipe(recipe)
    settings = base.replace(**(changes or {})).model_dump(mode="json")
    runs = []
    for seed in seeds:
        for i, backbone in enumerate(names):
            keys: dict[str, str] = {}
            suffix = "" if len(names) == 1 else f"_{backbone}"
            arms = arms_of(backbone, joints=joints)
            if scheme == SIGNS:
                arms = tuple(arm for arm in arms if arm.name in DEMONSTRATED)
            for order, arm in enumerate(arms, 100 * i):
                run = Run(
                    study=STUDY,
                    name=arm.name + suffix,
                    model=_model(arm, backbone, data),
                    recipe=settings,
                    data=data,
                    seed=seed,
                    task=TaskRef(name=arm.task, args=_task_args(arm, data)),
                    init_from=keys[arm.shares_of] if arm.shares_of else None,
                    metadata={
                        "backbone": backbone,
                        "regime": "anytime",
                        "row": arm.name,
                        "label": arm.label + (f", {backbone}" if suffix else ""),
                        "order": order,
                        "adopted": arm.adopted,
                        "parent": arm.parent and arm.parent + suffix,
                        "section": arm.section,
                        "published": False,
                    },
                )
                keys[arm.name] = run.key
                runs.append(run)
    return runs


@lru_cache
def _check_backbone(name: str) -> None:
    """Build its network without weights, to fail before the runs do. Raises SpecError."""
    import torch

    from convnext_study.studies.anytime.network import AnytimeNet

    with torch.device("meta"):
        AnytimeNet(AnytimeSpec(backbone=name), num_classes=2)


def small_recipe(data: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """`SMALL`, or `SMALL_ON_SIGNS`, with epochs that make `SMALL_STEPS` steps for any number of
    images, unless ``changes`` has epochs. Raises DataError for missing data."""
    recipe = SMALL_ON_SIGNS if data.startswith(SIGNS) else SMALL
    if changes and "epochs" in changes:
        return recipe
    steps = max(1, _training_images(data) // recipe.global_batch_size)
    epochs = max(1, round(SMALL_STEPS / steps))
    return recipe.model_copy(update={"epochs": epochs, "warmup_epochs": epochs * WARMUP})


@lru_cache
def _training_images(data: str) -> int:
    from convnext_study.data import open_data

    labels = JOINTS if has_joints(data) else OF_PIXELS
    return len(open_data(data, labels, corrupt_images="skip").train)


def published_recipe() -> Recipe:
    """The authors' recipe for Cityscapes; none is stated for MPII."""
    stated = published()["recipe"]
    fields = ("epochs", "optimizer", "lr", "momentum", "weight_decay")
    return Recipe(
        name="anytime-published",
        **{field: stated[field] for field in fields},
        lr_base_size=stated["global_batch"],
        global_batch_size=stated["global_batch"],
        weight_decay_1d=True,
        schedule="poly",
        crop="none",
        sync_bn=True,
    )


def _model(arm: AnytimeArm, backbone: str, data: str) -> ModelRef:
    fields: dict[str, Any] = {"backbone": backbone, "head_momentum": BATCHNORM_MOMENTUM, **arm.spec}
    if data.startswith((CITYSCAPES, MPII)):  # ours and the road map's have no weights
        name = fields["backbone"]
        fields["pretrained"] = name not in HRNETS and not name.startswith("roadmap_")
    spec = AnytimeSpec.from_dict(fields)
    return ModelRef(builder=BUILDER, args=without_defaults(spec.to_dict(), AnytimeSpec().to_dict()))


def _task_args(arm: AnytimeArm, data: str) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if arm.exit_weights is not None:
        args["exit_weights"] = list(arm.exit_weights)
    if data.startswith(CITYSCAPES):
        stated = published()["recipe"]
        args |= {
            "crop": stated["crop"],
            "scales": [0.5 + tenth / 10 for tenth in range(17)],
            "class_weights": stated["class_weights"],
        }
    elif data.startswith((CANVAS, SIGNS)):
        args["class_weights"] = [BACKGROUND, *[1.0] * 10]
    return args
