"""From arms to runs: networks, recipes and arguments of the task, by the data that is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from convnext_study.data.dense import DENSE_SOURCES
from convnext_study.data.labels import OF_PIXELS, check_labels
from convnext_study.errors import UserError, did_you_mean
from convnext_study.recipes import Recipe, get_recipe
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef, Run, TaskRef
from convnext_study.studies.anytime.arms import Arm, arms_of
from convnext_study.studies.anytime.published import published
from convnext_study.studies.anytime.spec import HRNETS, AnytimeSpec

STUDY = BUILDER = "anytime"
CANVASES, CITYSCAPES = "digit-canvas", "cityscapes"

# Ours, for minutes on a laptop.
SMALL = Recipe(
    name="anytime-small",
    epochs=3,
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
BACKGROUND = 0.5  # weight of the canvases' background in the loss


def default_backbones(data: str) -> tuple[str, ...]:
    """The small network of ours; on Cityscapes the authors' smaller one."""
    if data.startswith(CITYSCAPES):
        return (str(published()["backbone"]["w18"]["timm"]),)
    return (AnytimeSpec().backbone,)


def runs_of(
    data: str,
    seeds: Iterable[int],
    recipe: str | None = None,
    changes: Mapping[str, Any] | None = None,
    backbones: Sequence[str] = (),
) -> list[Run]:
    """Every arm on every backbone for every seed.

    Args:
        data: URI.
        seeds: one run of every arm for each.
        recipe: ``published``, ``small``, or a recipe's name or file. (default: published on
            Cityscapes, small elsewhere)
        changes: fields of the recipe.
        backbones: as `AnytimeSpec` names them. (default: `default_backbones`)

    Raises UserError, one line, for data without a class for every pixel, for a recipe that cannot
    be used, and for a backbone that cannot be had.
    """
    scheme = data.partition(":")[0]
    check_labels(data, OF_PIXELS)
    if scheme not in DENSE_SOURCES:
        near = did_you_mean(scheme, list(DENSE_SOURCES))
        raise UserError(f"data {data!r}: unknown kind{near}")
    for backbone in backbones:
        _check_backbone(backbone)
    names = tuple(backbones) or default_backbones(data)
    usual = "published" if data.startswith(CITYSCAPES) else "small"
    known = {"published": published_recipe(), "small": SMALL}
    chosen = known.get(recipe or usual) or get_recipe(recipe or usual)
    settings = chosen.replace(**(changes or {})).model_dump(mode="json")
    found = []
    for seed in seeds:
        for place, backbone in enumerate(names):
            keys: dict[str, str] = {}
            for order, arm in enumerate(arms_of(backbone)):
                end = "" if len(names) == 1 else f"_{backbone}"
                run = Run(
                    study=STUDY,
                    name=arm.name + end,
                    model=_model(arm, backbone, data),
                    recipe=settings,
                    data=data,
                    seed=seed,
                    task=TaskRef(name=arm.task, args=_task_args(arm, data)),
                    init_from=keys[arm.shares_of] if arm.shares_of else None,
                    metadata=_facts(arm, 100 * place + order, backbone, end),
                )
                keys[arm.name] = run.key
                found.append(run)
    return found


@lru_cache
def _check_backbone(name: str) -> None:
    """Build its network without weights: better now than in every run. Raises SpecError."""
    import torch

    from convnext_study.studies.anytime.networks.network import AnytimeNet

    with torch.device("meta"):
        AnytimeNet(AnytimeSpec(backbone=name), num_classes=2)


def published_recipe() -> Recipe:
    """The authors' recipe for Cityscapes."""
    said = published()["recipe"]
    return Recipe(
        name="anytime-published",
        epochs=said["epochs"],
        optimizer=said["optimizer"],
        lr=said["lr"],
        lr_base_size=said["global_batch"],
        global_batch_size=said["global_batch"],
        momentum=said["momentum"],
        weight_decay=said["weight_decay"],
        weight_decay_1d=True,
        schedule="poly",
        crop="none",
        sync_bn=True,
    )


def _model(arm: Arm, backbone: str, data: str) -> ModelRef:
    fields: dict[str, Any] = {"backbone": arm.backbone or backbone, **arm.spec}
    if data.startswith(CITYSCAPES):
        fields["pretrained"] = _has_weights(fields["backbone"])
    spec = AnytimeSpec.from_dict(fields)
    return ModelRef(builder=BUILDER, args=without_defaults(spec.to_dict(), AnytimeSpec().to_dict()))


def _has_weights(backbone: str) -> bool:
    """Whether timm has weights of it to start from: of ours and of the road map there are none."""
    return backbone not in HRNETS and not backbone.startswith("roadmap_")


def _task_args(arm: Arm, data: str) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if arm.exit_weights is not None:
        args["exit_weights"] = list(arm.exit_weights)
    if data.startswith(CITYSCAPES):
        said = published()["recipe"]
        args |= {
            "crop": said["crop"],
            "scales": [0.5 + tenth / 10 for tenth in range(17)],
            "class_weights": said["class_weights"],
        }
    elif data.startswith(CANVASES):
        args["class_weights"] = [BACKGROUND, *[1.0] * 10]
    return args


def _facts(arm: Arm, order: int, backbone: str, end: str) -> dict[str, Any]:
    return {
        "backbone": backbone,
        "regime": "anytime",
        "row": arm.name,
        "label": arm.label + (f", {end[1:]}" if end else ""),
        "order": order,
        "adopted": arm.adopted,
        "parent": arm.parent and arm.parent + end,
        "section": arm.section,
        "published": False,
    }
