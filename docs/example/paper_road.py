"""Draws ``paper_road.png``: the paper's road, its accuracies with this package's counts of MACs."""

from dataclasses import replace
from pathlib import Path

from convnext_study.cost.closed_form import closed_form
from convnext_study.report.figures.roadmap import roadmap
from convnext_study.report.figures.style import save
from convnext_study.results.paper import PAPER_METRIC
from convnext_study.results.rows import ResultRow, StudyTitle
from convnext_study.roadmap import T, Variant
from convnext_study.roadmap.paper import PAPER

CAPTION = (
    "Accuracies are the paper's (Table 10, ImageNet-1K, mean of three seeds; the first row is "
    "torchvision's). Nothing here was trained by this package.",
    "MACs are this package's counts at 224x224; they reproduce the printed figures of all rows but "
    "two, which are errata of the paper.",
)


def row(variant: Variant) -> ResultRow:
    """The paper's row as a result."""
    published = PAPER["t"][variant.name]
    before = PAPER["t"][variant.parent].top1 if variant.parent else None
    return ResultRow(
        name=variant.name,
        label=variant.label,
        study="roadmap-t",
        regime="t",
        section=variant.step.section if variant.step else "2.1",
        order=None,
        adopted=variant.adopted,
        parent=variant.parent,
        data="ImageNet-1K",
        recipe="",
        epochs=None,
        seeds={},
        seeds_requested=0,
        statuses={},
        metric=replace(PAPER_METRIC, decimals=2),
        value=published.top1,
        std=published.std,
        gain=None if before is None else published.top1 - before,
        macs=closed_form(variant.spec, T.image_size, T.num_classes).macs,
    )


if __name__ == "__main__":
    title = StudyTitle(
        title="The paper's road, from ResNet-50 to ConvNeXt-T",
        data="ImageNet-1K",
        regime="t",
        compare_paper=False,
    )
    rows = [row(variant) for variant in T.variants()]
    save(roadmap(rows, title, caption=CAPTION), Path(__file__).parent, "paper_road", ("png",))
