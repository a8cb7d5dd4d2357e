"""How far can a small road be trusted? Its agreement with the paper, by difficulty and by width.

    convnext-study study agreement --seeds 3

Trains the whole road on easy, medium and hard images of `clutter`, and on medium ones with networks
half as wide. With other ``--data``, trains the road on it at both widths.

Runs: 68 per seed (34 with other data). Cost: about 25 s per run on one idle core, so about 15
minutes per seed on two.

Expect: rows that train stably; docs/clutter.md shows how far the medium road agrees. A result that
appears in one row of the table and not in the next is specific to these images and networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import select_records
from convnext_study.report.findings import Finding
from convnext_study.report.tables.agreement import agreement_table, roads_table, trained_road
from convnext_study.runs.records import Record, Run

DATA = "clutter"
FOLDER = "agreement"
NARROW = 0.5  # of the road's widths


class Setting(NamedTuple):
    """Data and width of a road. ``name`` is appended to its rows' names; the main road has none."""

    name: str
    label: str
    data: str
    width: float = 1.0


def settings(data: str) -> list[Setting]:
    """The settings to compare on that data. ``clutter`` without a suffix is medium."""
    if data != DATA:
        return [Setting("", data, data), Setting("narrow", "widths halved", data, NARROW)]
    return [
        Setting("easy", "easy", f"{data}:easy"),
        Setting("", "medium", data),
        Setting("hard", "hard", f"{data}:hard"),
        Setting("narrow", "medium, widths halved", data, NARROW),
    ]


def road(context: Context, setting: Setting) -> list[Run]:
    """The rows of the road, under their own names."""
    scaled = context.road.scaled(setting.width)
    return replace(context, road=scaled, data=setting.data).runs()


def named(run: Run, setting: Setting, position: int) -> Run:
    """The run under a name that is unique among the settings."""
    if not setting.name:
        return run
    metadata = dict(run.metadata)
    metadata["parent"] = metadata["parent"] and f"{metadata['parent']}-{setting.name}"
    metadata["label"] = f"{metadata['label']} ({setting.label})"
    metadata["order"] += 100 * position
    return run.model_copy(update={"name": f"{run.name}-{setting.name}", "metadata": metadata})


def runs(context: Context) -> list[Run]:
    return [
        named(run, setting, position)
        for position, setting in enumerate(settings(context.data))
        for run in road(context, setting)
    ]


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    roads = [
        trained_road(
            setting.label, context.road.regime, select_records(records, road(context, setting))
        )
        for setting in settings(context.data)
    ]
    if not any(trained.rows for trained in roads):
        return []
    table = agreement_table([(trained.label, trained.agreement) for trained in roads])
    return [roads_table(roads), *([table] if table else [])]
