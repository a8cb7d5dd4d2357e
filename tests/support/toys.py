"""Two tasks that the engine does not know: dense prediction, and a network that is masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.data.rng import fold_in
from convnext_study.recipes import MODERN_SMALL, make_recipe
from convnext_study.runs.metrics import NETWORK, Cost, Metric, Samples
from convnext_study.runs.records import ModelRef, Run, TaskRef
from convnext_study.training.distributed import all_gather
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Evaluation, Parent, Task, load_weights
from convnext_study.training.tasks.classification import Classification
from convnext_study.training.tasks.segmentation import confusion, overlap_of

CLASSES, IGNORE, SIZE = 3, 255, (12, 20)


class TwoExits(nn.Module):
    """Logits after one convolution, and after two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.norm = nn.BatchNorm2d(width)
        self.heads = nn.ModuleList(nn.Conv2d(width, CLASSES, 1) for _ in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        early = self.norm(self.first(images)).relu()
        late = self.second(early).relu()
        return [head(maps) for head, maps in zip(self.heads, (early, late), strict=True)]


class ToySegmentation(Task):
    """Which of three colours a pixel had before noise; two exits; some pixels have no label."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.run, self.runtime, self.recipe = run, runtime, make_recipe(run.recipe)
        self.train = make_scenes(24, seed=1)
        self.val = make_scenes(10, seed=2)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train[0]) // self.recipe.global_batch_size

    @property
    def accum_steps(self) -> int:
        return 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (3, *SIZE)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"scenes": len(self.train[0])}

    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        assert recorded == self.fingerprint, where

    def build(self, parent: Parent | None = None) -> nn.Module:
        return TwoExits(self.run.model.args["width"])

    def train_batches(self, epoch: int, start: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(fold_in(self.run.seed, "order", epoch))
        order = torch.randperm(len(self.train[0]), generator=generator)
        batch = self.recipe.global_batch_size
        for step in range(start, self.steps_per_epoch):
            mine = order[step * batch : (step + 1) * batch]
            mine = mine.chunk(self.runtime.world_size)[self.runtime.rank]
            yield tuple(part[mine] for part in self.train)

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        images, labels = batch
        losses = [F.cross_entropy(one, labels, ignore_index=IGNORE) for one in model(images)]
        return torch.stack(losses).sum(), len(images)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        count = len(self.val[0])
        mine = range(self.runtime.rank, count, self.runtime.world_size)
        labels = self.val[1][mine]
        maps = [confusion(one.argmax(1), labels, CLASSES) for one in model(self.val[0][mine])]
        exits = [overlap_of(one)[..., :2] for one in maps]
        check()
        every = torch.zeros(2, count, CLASSES, 2, dtype=torch.int64)
        for indices, found in all_gather((list(mine), torch.stack(exits))):
            every[:, indices] = found
        metrics = {}
        for number, one in enumerate(every, 1):
            inside, union = one.sum(0).double().unbind(-1)
            metrics[f"miou_{number}"] = Metric(
                value=100 * float((inside / union).mean()),
                label=f"mIoU, exit {number}",
                samples=Samples.of_ratio(one.numpy()),
            )
        return Evaluation(metrics=metrics, primary="miou_2", images=count)

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        whole = super().costs(model)[NETWORK]
        early = Cost(macs=whole.macs // 2, params=whole.params // 2, activations=1)
        return {"exit 1": early, NETWORK: whole}


def make_scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 12, 20) and labels (count, 12, 20), a column of them without."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(CLASSES, (count, 3, 5), generator=generator)
    labels = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    images = images + 0.8 * torch.randn(images.shape, generator=generator)
    labels[:, :, 0] = IGNORE
    return images, labels


class Masked(Classification):
    """The parent's network, of each convolution the ``keep`` largest share of its weights; they
    start as the parent's, or, with ``weights: random``, anew."""

    def build(self, parent: Parent | None = None) -> nn.Module:
        assert parent is not None
        net = super().build()
        fresh = {name: value.clone() for name, value in net.state_dict().items()}
        load_weights(net, parent)
        self.masks = {
            name: (weight.detach().abs() >= weight.detach().abs().quantile(1 - self.keep)).float()
            for name, weight in net.named_parameters()
            if weight.ndim == 4
        }
        if self.run.task.args.get("weights") == "random":
            net.load_state_dict(fresh)
        return net

    @property
    def keep(self) -> float:
        return float(self.run.task.args["keep"])

    def begin(self, model: nn.Module) -> None:
        self.apply(model)

    def after_step(self, model: nn.Module, step: int, skipped: Tensor) -> None:
        self.apply(model)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        for name, weight in model.named_parameters():
            if name in self.masks:
                weight.mul_(self.masks[name])


def segmentation_run(seed: int = 0, width: int = 4, **recipe: Any) -> Run:
    """Two seconds of training."""
    fields = {"epochs": 3, "warmup_epochs": 0, "global_batch_size": 6, "lr": 0.2, **recipe}
    return Run(
        study="scenes",
        name=f"width{width}",
        model=ModelRef(builder="scenes:net", args={"width": width}),
        recipe=MODERN_SMALL.replace(**fields).model_dump(mode="json"),
        data="scenes",
        seed=seed,
        task=TaskRef(name="support.toys:ToySegmentation"),
        metadata={"label": f"width {width}", "parent": None if width == 4 else "width4"},
    )


def masked_run(parent: Run, weights: str = "inherited", keep: float = 0.3) -> Run:
    """The second phase of a run."""
    task = TaskRef(name="support.toys:Masked", args={"keep": keep, "weights": weights})
    about = {"task": task, "init_from": parent.key, "name": f"{parent.name}-{weights}"}
    return parent.model_copy(update=about)
