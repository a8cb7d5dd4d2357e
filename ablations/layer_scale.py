"""The road map with layer scale in every row, as Appendix A.1 of the paper literally says.

    convnext-study study layer_scale --regime t --data folder:PATH --seeds 3 --dry-run
    convnext-study study layer_scale --seeds 3

Section 2 uses "Table 5's setting" (A.1), in which layer scale is 1e-6; where it enters the road is
not stated, so our road has none. Here it multiplies the branch of every block, from the second row
on.

Runs: 16 per seed, in addition to the road's own. Cost: the road's.

Expect: little. Layer scale was designed for deeper networks than most of these.
"""

from __future__ import annotations

from dataclasses import replace

from convnext_study.experiments.context import Context
from convnext_study.runs.records import Run

LAYER_SCALE = 1e-6  # Table 5


def runs(context: Context) -> list[Run]:
    base = context.road.base.replace(layer_scale=LAYER_SCALE)
    _, *rows = context.road.variants()
    scaled = replace(context, road=replace(context.road, base=base))
    return [with_layer_scale(run) for run in scaled.runs([row.name for row in rows])]


def with_layer_scale(run: Run) -> Run:
    """The run beside the road's row of its name, to which it is compared."""
    about = run.metadata
    changes = {"label": f"{about['label']} + layer scale", "parent": run.name, "adopted": False}
    return run.model_copy(
        update={"name": f"{run.name}+layer_scale", "metadata": {**about, **changes}}
    )
