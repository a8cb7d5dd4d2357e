"""The commands that reproduce a study's runs, checked against the runs' keys."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_study.errors import UserError
from convnext_study.experiments.study_file import NETWORKS, TARGETS, named_studies
from convnext_study.results.grouping import RunGroup, differences
from convnext_study.results.rows import short_data
from convnext_study.results.subset_results import RECIPE
from convnext_study.roadmap import ROADMAPS, Roadmap, get_roadmap
from convnext_study.runs.records import Record, Run

# Recipe fields that the command line can change, and the option for each.
_OPTIONS = {"epochs": "--epochs", "global_batch_size": "--batch-size", "image_size": "--image-size"}
_COMMIT = re.compile(r"[0-9a-f]{7,64}\+?", re.ASCII)
# The package's study for each kind, with its options.
_STUDIES = {
    "leave_one_out": "leave_one_out",
    "add_one_in": "add_one_in",
    "pairs": "pairs",
    "reorder": "reorder",
    "subset": "attribution",
    "sections": "attribution --players section",
}


def commands(groups: Sequence[RunGroup], folder: str) -> list[str]:
    """Lines for a shell; comments say what the other lines were checked against."""
    records = [record for group in groups for record in group.seeds.values()]
    if not records:
        return []
    lines = _checkout(records)
    runs = [record.run for record in records]
    regime = runs[0].metadata.get("regime")
    kind = str(runs[0].metadata.get("study_kind", ""))
    seeds = _seeds(sorted({run.seed for run in runs}))
    if regime in ROADMAPS and all(run.study == f"roadmap-{regime}" for run in runs):
        lines += _roadmap(get_roadmap(regime), runs, seeds, folder)
    elif kind in _STUDIES and regime in ROADMAPS:
        line = f"convnext-study study {_STUDIES[kind]} --regime {regime} "
        lines.append(
            line + shlex.join([*_options(get_roadmap(regime), runs, seeds), "--out", folder])
        )
        lines.append("# not checked: the records name the kind of study, not the command")
    elif len(studies := {run.study for run in runs}) == 1 and studies <= named_studies().keys():
        lines += _study(runs, seeds, folder)
    else:
        lines.append("# The records do not say which command requested these runs.")
    # A line break in a comment would turn a record's text into a command.
    lines = [" ".join(line.split()) if line.startswith("#") else line for line in lines]
    return [*lines, f"convnext-study report {shlex.quote(folder)}"]


def _checkout(records: Sequence[Record]) -> list[str]:
    manifests = [record.manifest for record in records]
    commits = sorted({str(manifest["commit"]) for manifest in manifests if manifest.get("commit")})
    # What is typed into a shell must be a digest, not one of git's options or a branch.
    if unknown := [record for record in commits if not _COMMIT.fullmatch(record)]:
        return [f"# made at something that is not a commit: {', '.join(unknown)}"[:200]]
    if len(commits) != 1:
        return [f"# made at {len(commits)} commits: {', '.join(commits)}"] if commits else []
    note = "  # with uncommitted changes in the package" if commits[0].endswith("+") else ""
    return [f"git checkout {shlex.quote(commits[0].removesuffix('+'))}{note}"]


def _roadmap(road: Roadmap, runs: Sequence[Run], seeds: str, folder: str) -> list[str]:
    from convnext_study.experiments.roadmap_runs import parse_seeds, roadmap_runs

    names = {run.name for run in runs}
    variants = [variant for variant in road.variants() if variant.name in names]
    parts = ["convnext-study", "roadmap", "--regime", road.regime]
    if len(variants) < len(road.variants()):
        parts += ["--steps", ",".join(variant.name for variant in variants)]
    line = shlex.join([*parts, *_options(road, runs, seeds), "--out", folder])
    choice, changes = _recipe(road, runs)
    try:
        requested = roadmap_runs(
            road,
            variants,
            data=runs[0].data,
            seeds=parse_seeds(seeds),
            recipe=choice,
            changes=changes,
        )
    except UserError as error:
        return [line, f"# This command requests different runs: {error}"]
    requested = [run.model_copy(update={"data_id": runs[0].data_id}) for run in requested]
    keys = {run.key for run in requested}
    other = [run for run in runs if run.key not in keys]
    if other:
        by_row = {(run.name, run.seed): run for run in requested}
        nearest = by_row.get((other[0].name, other[0].seed))
        why = f": {differences(other[0], nearest)}" if nearest else ""
        return [
            f"# {len(other)} of the {len(runs)} runs differ from those that this "
            f"command requests{why}",
            line,
        ]
    extra = len(keys - {run.key for run in runs})
    note = f" and {extra} more" if extra else ""
    return [f"# requests the {len(runs)} runs counted above, checked by their keys{note}", line]


def _study(runs: Sequence[Run], seeds: str, folder: str) -> list[str]:
    """The command of a study whose networks are not the road map's, as far as it is recorded."""
    # The data of most runs; a few may be trained on other data for their architecture alone.
    data = Counter(run.data for run in runs).most_common(1)[0][0]
    parts = ["convnext-study", "study", runs[0].study, "--data", _data(data), "--seeds", seeds]
    networks = {str(run.metadata[NETWORKS]) for run in runs if run.metadata.get(NETWORKS)}
    parts += ["--networks", ",".join(sorted(networks))] if networks else []
    all_targets = [run.metadata.get(TARGETS) for run in runs]
    for target in sorted({str(t) for ts in all_targets if isinstance(ts, list) for t in ts}):
        name, at, uri = target.partition("@")
        parts += ["--target", f"{name}{at}{_data(uri)}"]
    return [
        shlex.join([*parts, "--out", folder]),
        "# not checked: the records do not show options that changed the recipes",
    ]


def _options(road: Roadmap, runs: Sequence[Run], seeds: str) -> list[str]:
    """Data, seeds, and the recipe if it is not the road map's own."""
    from convnext_study.experiments.roadmap_runs import default_recipe

    parts = ["--data", _data(runs[0].data), "--seeds", seeds]
    choice, changes = _recipe(road, runs)
    if choice != default_recipe(road, runs[0].data):
        parts += ["--recipe", choice]
    for field, value in changes.items():
        parts += [_OPTIONS[field], str(value)]
    return parts


def _recipe(road: Roadmap, runs: Sequence[Run]) -> tuple[str, dict[str, Any]]:
    """The nearest choice of recipe, and what was changed in it."""
    from convnext_study.experiments.roadmap_runs import row_recipe
    from convnext_study.recipes import CHOICES, RECIPES, name_for

    row_name = str(runs[0].metadata.get(RECIPE, ""))
    base = str(runs[0].recipe.get("name", "")).partition("[")[0]
    choice = {name_for(row_name, name): name for name in CHOICES}.get(base, base)
    if Path(choice).suffix == ".toml":  # do not read a file that a record names
        choice = "unknown"
    changes: dict[str, Any] = {}
    for run in runs:
        if run.metadata.get(RECIPE) in RECIPES:  # another could be the name of a file
            with contextlib.suppress(UserError):
                plain = row_recipe(road, run.metadata[RECIPE], choice).model_dump(mode="json")
                values = {name: run.recipe.get(name) for name in _OPTIONS}
                changes |= {k: v for k, v in values.items() if v not in (None, plain[k])}
    return choice, changes


def _data(uri: str) -> str:
    """Data with PATH in place of its parent folders, which differ between users."""
    short = short_data(uri)
    kind, _, name = short.partition(":")
    return f"{kind}:PATH/{name}" if name and short != uri else short


def _seeds(seeds: list[int]) -> str:
    """Seeds as on the command line: 3 for 0, 1, 2. A single one includes those below it."""
    if seeds == list(range(len(seeds))) or len(seeds) == 1:
        return str(seeds[-1] + 1)
    return ",".join(map(str, seeds))
