"""The screens of `show`: what changes is there and marked, and the numbers are the count's."""

import random
import re

import pytest
from support.nets import random_spec
from support.pages import on_screen

from convnext_study import cost
from convnext_study.cost import count_spec
from convnext_study.cost.closed_form import sides
from convnext_study.report.show import show
from convnext_study.report.show.layers import PARTS_OF_FIELD, TITLES, describe
from convnext_study.report.tables.formatting import signed
from convnext_study.roadmap import ROADMAPS, Variant, get_roadmap
from convnext_study.roadmap.paper import published_row
from convnext_study.roadmap.spec import NetSpec

variants = pytest.mark.parametrize(
    "variant",
    [
        pytest.param(
            variant,
            id=f"{variant.regime}-{variant.name}",
            marks=[] if place % 4 == 0 else [pytest.mark.exhaustive],
        )
        for road in ROADMAPS.values()
        for place, variant in enumerate(road.variants())
    ],
)


def screen(regime: str, name: str, image_size: int | None = None, width: int = 80) -> str:
    return on_screen(show(get_roadmap(regime), name, image_size), width=width)


def rows_of(text: str) -> list[tuple[str, str]]:
    """What stands left and right of the bar, headings left out."""
    sides = [line.split(" │ ") for line in text.splitlines() if " │ " in line]
    return [(left, right) for left, right in sides if "MMACs" not in left]


@variants
def test_a_screen_fits_80_columns_and_marks_what_changes(variant: Variant) -> None:
    text = screen(variant.regime, variant.name)
    rows = rows_of(text)
    assert text.startswith(f"{variant.label}\n{variant.name}, row ")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    for left, right in rows:
        assert len(left) == 38, "both sides stand under their headings"
        assert len(right) <= 38
    for field in variant.step.overrides if variant.step else ():
        before = get_roadmap(variant.regime).variant(variant.parent or "").spec
        assert f"{field} {getattr(before, field)} → {getattr(variant.spec, field)}" in text
    marked = [row for row in rows if "-" in row[0][:1] or "+" in row[1][:1]]
    if variant.step is None or not variant.step.overrides:
        assert not marked
        return
    heading, *changes = marked
    assert heading[0].strip() == f"- before: {variant.parent}"
    assert heading[1].strip() == f"+ after: {variant.name}"
    assert changes
    for left, right in rows:
        if (left, right) in marked:
            assert left.strip("- ") != right.strip("+ ")
        else:
            assert left.rstrip() == right.rstrip()


CHANGED = {
    "stage_ratio": ["- stage 3: × 6", "+ stage 3: × 9"],
    "patchify_stem": ["- conv 7x7 /2", "- max pool 3x3 /2", "+ conv 4x4 /4 +b"],
    "depthwise_conv": ["- conv 3x3", "+ dwconv 3x3"],
    "increase_width": ["3→64", "3→96", "1024→256", "1536→384", "+ stage 4: × 3          3072"],
    "invert_dimensions": ["1536→384", "384→1536", "-   conv 1x1 /2     768→1536", "192→384"],
    "move_up_depthwise": ["- dwconv 3x3       1536→1536", "+ dwconv 3x3         384→384"],
    "kernel_5": ["- dwconv 3x3", "+ dwconv 5x5"],
    "kernel_7": ["- dwconv 3x3", "+ dwconv 7x7", "kernel_9", "adopted"],
    "kernel_9": ["- dwconv 3x3", "+ dwconv 9x9", "Tried and not adopted"],
    "kernel_11": ["- dwconv 3x3", "+ dwconv 11x11"],
    "gelu": ["- ReLU", "+ GELU"],
    "fewer_activations": ["- GELU"],
    "fewer_norms": ["- batch norm", "+ conv 1x1 +b"],
    "layer_norm": ["- batch norm", "+ layer norm", "+ dwconv 7x7 +b", "Erratum. Table 10"],
    "separate_downsampling": [
        "- dwconv 7x7 /2 +b   192→192",
        "-   conv 1x1 /2 +b",
        "+ conv 2x2 /2 +b",
        "+ layer norm",
        "- (nothing)",
        "Head",
    ],
}


@pytest.mark.parametrize("name", [variant.name for variant in get_roadmap("t").variants()[2:]])
def test_the_changed_layers_are_on_the_screen(name: str) -> None:
    text = screen("t", name)
    for layer in CHANGED[name]:
        assert layer in text


def test_the_first_step_changes_the_recipe_and_no_layer() -> None:
    text = screen("t", "resnet50")
    assert "The network is the same" in text
    assert "recipe classic → modern" in text
    for setting in ("sgd", "optimizer", "adamw", "mixup", "0.8", "300"):
        assert setting in text
    small = screen("nano", "resnet")
    assert "classic-composed" in small
    assert "modern-composed" in small


def test_the_baseline_shows_the_whole_starting_network() -> None:
    text = screen("t", "resnet50-90ep")
    for part in ("conv 7x7 /2", "stage 1: × 3", "1024→256", "add a shortcut:", "add the input"):
        assert part in text
    assert "before:" not in text
    assert re.search("76.13 +paper, ImageNet-1K", text)


def test_costs_are_those_of_the_table() -> None:
    for regime in ROADMAPS:
        rows = {row["step"]: row for row in cost.table([regime])}
        unit = 1e-6 if regime == "nano" else 1e-9
        for variant in get_roadmap(regime).variants()[1:]:
            old, new = rows[variant.parent or ""], rows[variant.name]
            lines = screen(regime, variant.name).splitlines()
            macs = next(line for line in lines if line.startswith("MACs")).split()[2:]
            assert macs[:2] == [f"{row['macs'] * unit:.4f}" for row in (old, new)]
            change = (new["macs"] - old["macs"]) * unit
            assert macs[2] == (signed(change, 4) if change else "none")
            params = next(line for line in lines if line.startswith("parameters")).split()[2:]
            assert params[:2] == [f"{row['params'] / 1e6:.3f}" for row in (old, new)]


@variants
def test_the_papers_accuracy_is_called_the_papers_and_never_beside_ours(variant: Variant) -> None:
    text, paper = screen(variant.regime, variant.name), published_row(variant.regime, variant.name)
    if paper is None:
        assert variant.regime == "nano"
        assert "top-1" not in text
        assert "ImageNet-1K" not in text
        return
    line = next(line for line in text.splitlines() if line.startswith("top-1, %"))
    assert f"{paper.top1:.2f}" in line
    assert line.endswith("paper, ImageNet-1K")
    assert ("Erratum." in text) == (paper.erratum is not None)


def test_another_image_size_changes_maps_and_macs_and_a_wide_terminal_nothing() -> None:
    text = screen("t", "patchify_stem", image_size=256)
    assert "Cost at 256x256" in text
    spec = get_roadmap("t").variant("patchify_stem").spec
    assert f"{count_spec(spec, 256).macs / 1e9:.4f}" in text
    assert "+ conv 4x4 /4 +b        3→64  64  12.6" in text
    assert screen("t", "patchify_stem", image_size=256, width=200) == text


def test_every_part_that_a_field_asks_for_exists() -> None:
    fields = set(NetSpec().to_dict())
    assert set(PARTS_OF_FIELD) <= fields
    assert set(describe(NetSpec(), 224, 1000)) == set(TITLES)
    assert {part for parts in PARTS_OF_FIELD.values() for part in parts} <= set(TITLES)


def test_lines_add_up_to_the_count() -> None:
    generator = random.Random(0)
    for _ in range(100):
        spec, size = random_spec(generator), generator.randint(32, 97)
        parts = describe(spec, size, 10)
        whole = [line for part in ("stem", "stages", "head") for line in parts[part]]
        assert sum(line.macs for line in whole) == cost.closed_form(spec, size, 10).macs
        assert tuple(line.side for line in parts["stages"]) == sides(spec, size)[1:]
        assert parts["block"] != [] != parts["first"]
