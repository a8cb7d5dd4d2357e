"""What the study has to say of its finished runs: tables, the figure, and the claims in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.runs.records import Record
from convnext_study.studies.pruning.arm_names import LABELS
from convnext_study.studies.pruning.by_network import networks_table
from convnext_study.studies.pruning.claims import (
    Deviations,
    Statement,
    deviations,
    statements,
)
from convnext_study.studies.pruning.latency import measure
from convnext_study.studies.pruning.pareto import TITLE, pareto
from convnext_study.studies.pruning.rows import rows_of
from convnext_study.studies.pruning.table import arms_table, statements_table
from convnext_study.studies.pruning.two_factors import two_factor_tables


def findings(records: Iterable[Record]) -> list[Finding]:
    """Of the runs that the study asks for; nothing of none.

    Latency is measured here and now, of all networks in turn.
    """
    rows = rows_of(records)
    if not rows:
        return []
    latencies = measure(rows)
    found: list[Finding] = [arms_table(rows, latencies)]
    stds, said = deviations(rows), statements(rows)
    if said:
        found += [statements_table(said, [_noise(stds)]), "\n".join(_in_words(said))]
    found += [*networks_table(rows, said), *two_factor_tables(rows, stds)]
    found.append(StudyFigure("pruning_pareto", TITLE, pareto(rows, latencies)))
    return found


def _noise(stds: Deviations) -> str:
    if not stds:
        return "One seed: exact tests on the test images; what another seed changes takes several."
    each = ", ".join(f"{LABELS[arm]} {std.std:.2f}" for arm, std in stds.items())
    return (
        "The standard deviation between seeds, in points, is taken to be the same in all rows of "
        f"an arm: {each}."
    )


def _in_words(said: Sequence[Statement]) -> list[str]:
    """How many pairs answer the question in which way, in the questions' order."""
    lines = []
    several = len({one.first.network for one in said}) > 1
    for question in dict.fromkeys(one.question for one in said):
        own = [one for one in said if one.question == question]
        parts = "; ".join(
            f"{_what(one, several=several)}: {one.comparison.difference.diff:+.2f} ({one.verdict})"
            for one in own
        )
        lines.append(f"{question}: {parts}.")
    return lines


def _what(one: Statement, *, several: bool) -> str:
    """What is pruned, of which network where there are several."""
    about = one.first.run.metadata
    network = f"{about['network_label']}, " if several else ""
    return f"{network}{about['target_label']}"
