"""What the loop costs: a whole training beside the bare step that it repeats."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_study.benchmarks.networks import Settings
from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import Roadmap
from convnext_study.runs.records import Run

EPOCHS = 3


def engine_overhead(
    road: Roadmap, settings: Settings, report: Callable[[str], None]
) -> dict[str, Any]:
    """Efficiency of the engine on the last network of a road, in images/s over images/s.

    ``steps`` compares the training part of the epochs (reading, augmenting, schedule, generators,
    checks and log included), ``whole`` also evaluation, checkpoints and the first steps' warm-up.
    """
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.tasks import make_task

    report("engine_overhead")
    run = _run(road, settings)
    runtime = Runtime(device=settings.device, threads=settings.threads)
    task, batch = make_task(run, runtime), run.recipe["global_batch_size"]
    whole: list[float] = []

    def train() -> float:
        from convnext_study.training.loop import train

        with tempfile.TemporaryDirectory() as folder:
            result = train(run, Path(folder) / "run", runtime)
        whole.append(task.steps_per_epoch * batch * EPOCHS / result.seconds)
        return result.images_per_s

    bare = rate(_bare_step(run, task, runtime), batch, settings.seconds)
    found = interleave({"steps": train, "bare": bare}, settings.repeats)
    return {
        "network": run.name,
        "data": run.data,
        "batch": batch,
        "images_per_s": {name: Spread.of(values).to_dict() for name, values in found.items()},
        "efficiency": ratio(found["steps"], found["bare"]).to_dict(),
        "efficiency_whole": ratio(whole, found["bare"]).to_dict(),
    }


def _run(road: Roadmap, settings: Settings) -> Run:
    data = "digits" if road.image_size <= 32 else f"synthetic:10,{road.image_size},64"
    changes: dict[str, Any] = {"epochs": EPOCHS, "warmup_epochs": 0}
    if road.image_size > 32:
        changes["global_batch_size"] = settings.batch_size
    variant = road.variants()[-1]
    runs = roadmap_runs(road, [variant], data=data, seeds=[0], recipe="small", changes=changes)
    return runs[0]


def _bare_step(run: Run, task: Any, runtime: Any) -> Callable[[], object]:
    """Forward, backward and update on one batch of the run, with the engine's own parts."""
    from convnext_study.models.fast_conv import use_gemm_convs
    from convnext_study.recipes import make_recipe
    from convnext_study.training.optimizer import make_optimizer

    net: Any = task.build()
    if runtime.device == "cpu":
        use_gemm_convs(net)
    net = net.to(runtime.device, memory_format=runtime.memory_format).train()
    optimizer = make_optimizer(net, make_recipe(run.recipe))
    batch = next(iter(task.train_batches(0, 0)))

    def step() -> None:
        loss, _ = task.loss(net, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
