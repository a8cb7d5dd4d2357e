"""The whole road map, row by row: what `convnext-study roadmap` trains.

    convnext-study study road_map --seeds 3
    convnext-study study road_map --match-macs end

Runs: 17 per seed. Cost on the nano road: about 25 s per run on one idle core, so 4 minutes per seed
on two. With ``--match-macs`` every row gets the width that brings its MACs nearest to the last
row's, as its label says.

Expect: a rising road with drops at "depthwise conv" and "move up depthwise conv", as in the paper;
at equal MACs the early rows lose the advantage of their larger cost.
"""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.runs.records import Run


def runs(context: Context) -> list[Run]:
    return context.runs()
