"""The arms: their names, initial weights and recipes.

| arm | weights | epochs |
|---|---|---|
| dense | random | the base recipe's, E |
| fine_tuned | inherited | few, at a small constant rate |
| inherited | inherited | E, the full schedule |
| scratch_e | random | E |
| scratch_b | random | the computation of the dense training |
| scratch_t | random | the computation of the dense training and E epochs of the pruned network |
| ticket, control | rewound, new random ones | E, under the trained network's mask |
| round_1, round_2, ... | rewound or inherited | E, under the previous round's mask and more |
| slow_ticket, slow_control | the same | the same at a tenth of the rate, the dense training too |

Scratch-T and the second factor, inherited weights with the full schedule, are ours. The published
recipes are those of the authors' scripts, as ``published.toml`` states them; augmentation and
random draws are this package's. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convnext_study.errors import UserError
from convnext_study.recipes import Recipe, get_recipe, make_recipe
from convnext_study.studies.pruning.published import stated_recipe, tables

# Of the pruned network.
FINE_TUNED, INHERITED = "fine_tuned", "inherited"
SCRATCH_E, SCRATCH_B, SCRATCH_T = "scratch_e", "scratch_b", "scratch_t"
TICKET, CONTROL, SLOW_TICKET, SLOW_CONTROL = "ticket", "control", "slow_ticket", "slow_control"
ALL = (FINE_TUNED, INHERITED, SCRATCH_E, SCRATCH_B, SCRATCH_T)
ROUNDS = tuple(f"round_{number}" for number in range(1, 10))
LOTTERY = (TICKET, CONTROL, SLOW_TICKET, SLOW_CONTROL)
# Of the large network.
DENSE, SLOW_DENSE, SPARSE_DENSE = "dense", "slow_dense", "sparse_dense"
SLOW_ARMS = (SLOW_DENSE, SLOW_TICKET, SLOW_CONTROL)
# In a run's metadata: it is trained on other data than the study's, only for its architecture.
OF_OTHER_DATA = "of_other_data"
LABELS = {
    DENSE: "dense",
    SLOW_DENSE: "dense, slow",
    SPARSE_DENSE: "dense, prepared",
    FINE_TUNED: "fine-tuned",
    INHERITED: "inherited + schedule",
    SCRATCH_E: "Scratch-E",
    SCRATCH_B: "Scratch-B",
    SCRATCH_T: "Scratch-T",
    TICKET: "winning ticket",
    CONTROL: "control",
    SLOW_TICKET: "winning ticket, slow",
    SLOW_CONTROL: "control, slow",
    **{name: name.replace("_", " ") for name in ROUNDS},
}
# An arm's initial weights, where they are not random.
WEIGHTS = {
    FINE_TUNED: "inherited",
    INHERITED: "inherited",
    TICKET: "rewound",
    SLOW_TICKET: "rewound",
}
SLOWER = 10  # divides the rate of the second pair of tickets
# Where nothing is stated: shorter by the same factor as on CIFAR, at a tenth of the rate. The
# hundredth used there is too small for the few steps of a short training: in a pilot, the second
# row of the nano road with half of its channels recovered to 36 % with it and to 80 % with a tenth.
FINE_TUNE_SHORTER, FINE_TUNE_SLOWER = 4, 10


@dataclass(frozen=True)
class Schedules:
    """Recipes of one network's arms: ``base`` trains the unpruned network and all arms with the
    full schedule; ``fine_tune`` is short, at a small constant rate. The unpruned network's training
    counts as ``budget`` epochs, of which Scratch-B's are a multiple."""

    base: Recipe
    fine_tune: Recipe
    budget: int

    def recipe(self, arm: str, as_costly: int) -> Recipe:
        """An arm's recipe; ``as_costly`` epochs cost as much as the dense training."""
        if arm == FINE_TUNED:
            return self.fine_tune
        if arm == SCRATCH_B:
            return with_epochs(self.base, as_costly, self.budget)
        if arm == SCRATCH_T:
            return with_epochs(self.base, as_costly + self.base.epochs)
        return self.base.replace(lr=self.base.lr / SLOWER) if arm in SLOW_ARMS else self.base


def with_epochs(recipe: Recipe, epochs: int, budget: int | None = None) -> Recipe:
    """The recipe with a number of epochs; the rate drops after the same fractions of them.

    With ``budget``, milestones are scaled by the epochs over it. (default: the recipe's epochs)
    """
    budget = budget or recipe.epochs
    if epochs == budget == recipe.epochs:
        return recipe
    milestones, gamma = recipe.milestones, recipe.gamma
    if isinstance(milestones, tuple):
        # With few epochs some coincide: none is before the first epoch, and their drops multiply.
        moved = [max(1, epochs * milestone // budget) for milestone in milestones]
        if isinstance(gamma, tuple):
            drops: dict[int, float] = {}
            for milestone, factor in zip(moved, gamma, strict=True):
                drops[milestone] = drops.get(milestone, 1.0) * factor
            gamma = tuple(drops.values())
        milestones = tuple(sorted({*moved}))
    elif recipe.schedule == "step":
        milestones = max(1, epochs * milestones // budget)
    changes = {"epochs": epochs, "milestones": milestones, "gamma": gamma}
    changed = {**recipe.model_dump(), **changes, "name": f"{recipe.name}[epochs={epochs}]"}
    return Recipe.model_validate(changed)


def fine_tuning(base: Recipe, epochs: int | None = None, lr: float | None = None) -> Recipe:
    """A short schedule at one small rate, with the same optimizer and data."""
    changes = {
        "name": f"{base.name}-fine-tune",
        "epochs": epochs or max(1, base.epochs // FINE_TUNE_SHORTER),
        "lr": lr or base.lr / FINE_TUNE_SLOWER,
        "schedule": "constant",
        "warmup_epochs": 0.0,
    }
    return Recipe.model_validate({**base.model_dump(), **changes})


def published(recipe: str = "imagenet", method: str = "") -> Schedules:
    """The published schedules of networks with that recipe, pruned by that method."""
    name = method if method in tables()["recipe"] else recipe
    fields = stated_recipe(name)
    tuned, budget = fields.pop("fine_tune"), fields.pop("scratch_b_of", None)
    batch = fields["global_batch_size"]
    base = make_recipe({"name": f"pruning-{name}", "lr_base_size": batch, **fields})
    epochs = tuned["epochs"]
    if not isinstance(epochs, int):
        epochs = epochs.get(method, max(epochs.values()))
    return Schedules(base, fine_tuning(base, epochs, tuned["lr"]), budget or base.epochs)


# Ours, for minutes on a laptop; small batches, so that few images make enough steps. In pilots on a
# part of the digits' training images, the published drops without warmup cost the unpruned network
# 4 points. Filters set to zero have large gradients behind a BatchNorm and, unclipped, leave soft
# filter pruning at chance; with a norm of 1 instead of 5, a tenth of the rate or fine-tuning learns
# little in so few steps.
_REDUCED = published("cifar").base.model_copy(
    update={
        "name": "pruning-reduced",
        "epochs": 12,
        "lr": 0.05,
        "lr_base_size": 32,
        "global_batch_size": 32,
        "nesterov": True,
        "schedule": "cosine",
        "milestones": Recipe.model_fields["milestones"].default,  # unused
        "warmup_epochs": 1.0,
        "clip_grad": 5.0,
    }
)
REDUCED = Schedules(_REDUCED, fine_tuning(_REDUCED, 3, 0.001), _REDUCED.epochs)


def schedules_for(
    defaults: Schedules, recipe: str | None, changes: dict[str, Any], image_size: int | None
) -> Schedules:
    """The schedules with the command line's changes.

    ``recipe`` replaces the base recipe; ``published`` and ``small`` leave the choice to the
    network. ``changes`` are fields to set in every arm; ``epochs`` among them are the base's, and
    the other arms' follow. Raises RecipeError for a recipe that cannot be used.
    """
    base, tuned, budget = defaults.base, defaults.fine_tune, defaults.budget
    if recipe not in (None, "published", "small", "composed"):
        base = get_recipe(str(recipe))
        tuned, budget = fine_tuning(base), base.epochs
    fields = {name: value for name, value in changes.items() if value is not None}
    epochs = fields.pop("epochs", None)
    if image_size is not None:
        fields.setdefault("image_size", image_size)
    if epochs is not None:
        shorter = max(1, epochs * tuned.epochs // base.epochs)
        budget = epochs * budget // base.epochs
        base, tuned = with_epochs(base, epochs), with_epochs(tuned, shorter)
    if "milestones" in fields:
        raise UserError("milestones: this study takes fractions of the epochs; set epochs")
    if fields:
        base, tuned = base.replace(**fields), tuned.replace(**fields)
    return Schedules(base, tuned, budget)
