"""What a recipe is made of, in words, for the rows that change no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from convnext_study.report.show.columns import ADDED

if TYPE_CHECKING:
    from convnext_study.recipes import Recipe


def compare_recipes(before: Recipe | None, after: Recipe) -> Text:
    """A recipe, beside the one before it where there is one, with changed settings marked."""
    text = Text(style="")
    names = f"{'before: ' + before.name:<29} after: {after.name}" if before else after.name
    text.append(f"  {'Recipe':<16} {names}\n", "bold")
    old = _in_words(before) if before else {}
    for topic, setting in _in_words(after).items():
        changed = before is not None and setting != old[topic]
        text.append(f"{ADDED if changed else ' '} {topic:<16} ")
        text.append(f"{old[topic]:<29} " if before else "")
        text.append(f"{setting}\n", "bold green" if changed else "")
    return text


def _in_words(recipe: Recipe) -> dict[str, str]:
    """Topic and setting, in the order in which one would tell them."""
    nesterov = " (Nesterov)" if recipe.nesterov else ""
    optimizer = {"sgd": f"SGD, momentum {recipe.momentum:g}{nesterov}", "adamw": "AdamW"}
    schedule = {
        "step": f"x{recipe.gamma:g} {_when(recipe.milestones)}",
        "cosine": f"cosine, warm-up in epochs: {recipe.warmup_epochs:g}",
        "poly": f"(1 - progress)^{recipe.power:g}, warm-up in epochs: {recipe.warmup_epochs:g}",
    }
    crop = {"random_resized": "random resized", "random_crop": "random shift", "none": "none"}
    mix = [
        f"{name} {strength:g}"
        for name, strength in (("Mixup", recipe.mixup), ("CutMix", recipe.cutmix))
        if strength
    ]
    if mix:
        mix.append(f"one draw per {recipe.mix_group_size} images")
    return {
        "optimizer": optimizer[recipe.optimizer],
        "epochs": str(recipe.epochs),
        "learning rate": f"{recipe.lr:g} at batch {recipe.lr_base_size}",
        "schedule": schedule.get(recipe.schedule, recipe.schedule),
        "weight decay": f"{recipe.weight_decay:g}, {_decayed(recipe)}",
        "crop": crop[recipe.crop],
        "flip": "where the data allows it" if recipe.flip else "none",
        "RandAugment": recipe.rand_augment or "none",
        "mixed images": ", ".join(mix or ["none"]),
        "random erasing": _or_none(recipe.random_erasing),
        "label smoothing": _or_none(recipe.label_smoothing),
        "stochastic depth": _or_none(recipe.drop_path),
        "weight init": recipe.init.replace("_", " "),
    }


def _when(milestones: int | tuple[int, ...]) -> str:
    if isinstance(milestones, int):
        return f"every {milestones} epochs"
    return f"at epochs {', '.join(map(str, milestones))}"


def _decayed(recipe: Recipe) -> str:
    return "all parameters" if recipe.weight_decay_1d else "not on 1-D ones"


def _or_none(rate: float) -> str:
    return f"{rate:g}" if rate else "none"
