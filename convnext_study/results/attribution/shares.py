"""What steps are worth over all orders, in points of accuracy and in MACs, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from convnext_study.results.attribution.measured import Finding, Findings, Measured
from convnext_study.results.attribution.shapley import Shapley, shapley_exact, shapley_sampled
from convnext_study.results.attribution.subsets import Order, Subset, plan_exact, plan_orders
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.beyond import sections


def shapley_findings(measured: Measured, orders: Sequence[Order]) -> Findings | None:
    """Each step's share over sampled orders; None while a network of theirs is missing."""
    if not orders or plan_orders(orders).missing(measured.networks):
        return None
    noise = measured.noise(plan_orders(orders).subsets)
    shares = shapley_sampled(orders, measured.top1(), noise=noise)
    macs = shapley_sampled(orders, measured.macs())
    labels = {step: measured.label(step) for step in measured.steps}
    return _shapley("shapley_steps", labels, shares, macs)


def section_findings(measured: Measured) -> Findings | None:
    """Each section's exact share, all its steps together; None while a network is missing."""
    groups = sections(measured.road)
    plan = plan_exact(tuple(groups))
    sets = {subset: steps_of_sections(measured.road, subset) for subset in plan.subsets}
    if any(steps not in measured.networks for steps in sets.values()):
        return None
    top1, macs = (
        {subset: values[steps] for subset, steps in sets.items()}
        for values in (measured.top1(), measured.macs())
    )
    names = tuple(groups)
    shares = shapley_exact(names, top1, noise=measured.noise(sets.values()))
    labels = {
        name: f"{name}: " + ", ".join(map(measured.label, steps)) for name, steps in groups.items()
    }
    return _shapley("shapley_sections", labels, shares, shapley_exact(names, macs))


def steps_of_sections(road: Roadmap, names: Iterable[str]) -> Subset:
    """All steps of these sections of the paper."""
    return frozenset(step for name in names for step in sections(road)[name])


def _shapley(kind: str, labels: Mapping[str, str], shares: Shapley, macs: Shapley) -> Findings:
    lines = [
        Finding(
            name=name,
            label=label,
            points=shares.shares[name].value,
            interval=interval,
            told=interval.leaves_zero_out if interval else None,
            macs=macs.shares[name].value,
        )
        for name, label in labels.items()
        for interval in (shares.shares[name].interval,)
    ]
    what = "section" if kind.endswith("sections") else "step"
    note = "Intervals are of one share alone, not corrected for their number."
    return Findings(
        kind=kind,
        title=f"Shapley value of each {what}: its gain averaged over orders",
        head="share",
        lines=tuple(lines),
        total=Finding(
            name="total", label="last network over first", points=shares.total, macs=macs.total
        ),
        notes=(f"Accuracy: {shares.method}.", note),
    )
