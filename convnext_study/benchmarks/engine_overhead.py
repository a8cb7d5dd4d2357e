"""The loop's overhead: a whole training compared with the bare step that it repeats."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_study.benchmarks import BATCH, Settings
from convnext_study.benchmarks.timing import Row, compare, interleave, rate, wait
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Run

EPOCHS = 3


def measure(settings: Settings, report: Callable[[str], None]) -> tuple[str, list[Row]]:
    """Rows with the engine's and the bare step's images/s, on the last network of a road.

    ``training`` is only that part of the epochs (including reading, augmentation, schedule,
    generators, checks and log); the other row also includes evaluation, checkpoints and the
    warm-up of the first steps.
    """
    from convnext_study.training.loop import train
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.tasks import make_task

    report("engine_overhead")
    run = _run(settings)
    runtime = Runtime(device=settings.device, threads=settings.threads)
    task, batch = make_task(run, runtime), run.recipe["global_batch_size"]
    with_overhead: list[float] = []

    def engine() -> float:
        with tempfile.TemporaryDirectory() as folder:
            result = train(run, Path(folder) / "run", runtime)
        with_overhead.append(task.steps_per_epoch * batch * EPOCHS / result.seconds)
        return result.images_per_s

    bare = rate(_bare_step(run, task, runtime), batch, settings.seconds)
    rates = interleave({"engine": engine, "bare step": bare}, settings.repeats)
    rows = [
        compare("training", rates),
        compare("with evaluation, saving", {**rates, "engine": with_overhead}),
    ]
    return f"loop: {run.name} on {run.data}, batch {batch}", rows


def _run(settings: Settings) -> Run:
    road = get_roadmap(settings.regime)
    data = f"synthetic:10,{road.image_size},64" if road.published else "digits"
    batch = {"global_batch_size": settings.batch_size or BATCH} if road.published else {}
    changes = {"epochs": EPOCHS, "warmup_epochs": 0, **batch}
    variants = road.variants()[-1:]
    (run,) = roadmap_runs(road, variants, data=data, seeds=[0], recipe="small", changes=changes)
    return run


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
        wait(runtime.device)

    return step
