"""How far may a small road be trusted? Its agreement with the paper, by difficulty and by width.

    convnext-study study agreement --seeds 3

The whole road on easy, medium and hard images of `clutter`, and on the medium ones with networks
half as wide. With other ``--data``, the road on it at both widths.

Runs: 68 per seed (34 with other data). Cost: about 25 s per run on one idle core, so about 15
minutes per seed on two.

Expect: rows that train stably; docs/clutter.md has what the medium one agrees in. A result that
holds in one row of the table and not in the next says something about these images and networks
alone.
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
    """Where the road is trained. ``name`` ends its rows' names; the road itself has none."""

    name: str
    label: str
    data: str
    width: float = 1.0


def settings(data: str) -> list[Setting]:
    """What is compared on that data. Clutter is medium where it is given without a word."""
    if data != DATA:
        return [Setting("", data, data), Setting("narrow", "widths halved", data, NARROW)]
    return [
        Setting("easy", "easy", f"{data}:easy"),
        Setting("", "medium", data),
        Setting("hard", "hard", f"{data}:hard"),
        Setting("narrow", "medium, widths halved", data, NARROW),
    ]


def road(context: Context, setting: Setting) -> list[Run]:
    """The road's rows, under the road's names."""
    scaled = context.road.scaled(setting.width)
    return replace(context, road=scaled, data=setting.data).runs()


def named(run: Run, setting: Setting, place: int) -> Run:
    """The run under a name that it shares with no other setting's."""
    if not setting.name:
        return run
    about = run.metadata
    parent = about["parent"] and f"{about['parent']}-{setting.name}"
    label, order = f"{about['label']} ({setting.label})", about["order"] + 100 * place
    metadata = {**about, "label": label, "parent": parent, "order": order}
    return run.model_copy(update={"name": f"{run.name}-{setting.name}", "metadata": metadata})


def runs(context: Context) -> list[Run]:
    return [
        named(run, setting, place)
        for place, setting in enumerate(settings(context.data))
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
