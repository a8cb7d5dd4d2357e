"""What is compared: networks with one exit and with several, heads, masks, and controls.

The arms are the paper's, and three controls of ours: smaller and larger networks with one exit,
masks by chance, and exits that are there in training alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convnext_study.recipes import Recipe, get_recipe
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef, Run, TaskRef
from convnext_study.studies.anytime.published import published
from convnext_study.studies.anytime.spec import AnytimeSpec

STUDY = TASK = BUILDER = "anytime"
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
AUXILIARY = 0.4  # weight of exits for training alone, as of PSPNet's (Zhao et al., 2017)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A network of the comparison.

    Args:
        name: of its runs.
        label: for tables.
        section: of the table.
        parent: the arm that it is compared with in the table.
        spec: fields of `AnytimeSpec` that are set.
        task: the task's name.
        exit_weights: of each exit's loss.
        shares_of: the arm whose shares its random masks take.
        backbone: in the place of the one that was asked for: narrower or wider.
        adopted: whether the next arm goes on from it.
    """

    name: str
    label: str
    section: str
    parent: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    task: str = TASK
    exit_weights: tuple[float, ...] | None = None
    shares_of: str | None = None
    backbone: str | None = None
    adopted: bool = True


_ONE, _EARLY, _CONTROL = "One exit", "Four exits", "Controls"
EE = Arm(name="ee", label="early exits (EE)", section=_EARLY, spec={"heads": "original"})
RH = Arm(name="rh", label="EE, redesigned heads (RH)", section=_EARLY, parent="ee")
CA = Arm(
    name="ca",
    label="RH, confidence adaptivity (CA)",
    section=_EARLY,
    parent="rh",
    spec={"masks": "confidence"},
)
RANDOM = Arm(
    name="random",
    label="RH, random masks at CA's shares",
    section=_CONTROL,
    parent="ca",
    spec={"masks": "random", "random_shares": [1.0, 1.0, 1.0]},  # until it has CA's
    task="anytime-random-masks",
    shares_of="ca",
    adopted=False,
)
DEEP = Arm(
    name="deep",
    label="EE for training alone",
    section=_CONTROL,
    parent="plain",
    spec={"heads": "original"},
    task="anytime-deep-supervision",
    exit_weights=(*[AUXILIARY] * 3, 1.0),
    adopted=False,
)
# Networks of one family: a backbone's smaller and larger relations.
RELATIONS = {
    "hrnet_digits": {"narrow": "hrnet_digits_narrow", "wide": "hrnet_digits_wide"},
    "hrnet_w18_small_v2": {"wide": "hrnet_w48"},
}


def arms_of(backbone: str) -> tuple[Arm, ...]:
    """The arms on a backbone: a short network with one exit where it has no smaller relation."""
    relations = RELATIONS.get(backbone, {})
    others = [
        Arm(
            name=f"plain_{size}",
            label=f"one exit, {size}",
            section=_ONE,
            parent="plain",
            spec={"exits": [4]},
            backbone=other,
            adopted=False,
        )
        for size, other in relations.items()
    ]
    if "narrow" not in relations:
        others.append(
            Arm(
                name="plain_short",
                label="one exit, after two stages",
                section=_ONE,
                parent="plain",
                spec={"exits": [2], "heads": "original"},
                adopted=False,
            )
        )
    plain = Arm(name="plain", label="one exit", section=_ONE, spec={"exits": [4]})
    return (plain, *others, EE, RH, CA, RANDOM, DEEP)


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

    Raises RecipeError and SpecError, one line each.
    """
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
    )


def _model(arm: Arm, backbone: str, data: str) -> ModelRef:
    fields: dict[str, Any] = {"backbone": arm.backbone or backbone, **arm.spec}
    if data.startswith(CITYSCAPES):
        fields["pretrained"] = True
    spec = AnytimeSpec.from_dict(fields)
    return ModelRef(builder=BUILDER, args=without_defaults(spec.to_dict(), AnytimeSpec().to_dict()))


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
