"""What each step is worth: at the end, at the start, over all orders, and in pairs."""

from convnext_study.results.attribution.shapley import (
    Shapley,
    Share,
    shapley_exact,
    shapley_sampled,
)
from convnext_study.results.attribution.subsets import (
    Order,
    Plan,
    Side,
    Subset,
    Values,
    add_one_in,
    leave_one_out,
    pair_interactions,
    plan_exact,
    plan_near,
    plan_orders,
    prefixes,
    sampled_orders,
)

__all__ = [
    "Order",
    "Plan",
    "Shapley",
    "Share",
    "Side",
    "Subset",
    "Values",
    "add_one_in",
    "leave_one_out",
    "pair_interactions",
    "plan_exact",
    "plan_near",
    "plan_orders",
    "prefixes",
    "sampled_orders",
    "shapley_exact",
    "shapley_sampled",
]
