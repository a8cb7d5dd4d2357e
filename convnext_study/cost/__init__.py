"""The cost of a network: multiply-accumulates (MACs), parameters and activations for one image.

Only convolution and linear layers count, which is the rule behind every GFLOPs figure of the
paper. ``count`` takes any module; for a road map's networks `closed_form` returns the same without
torch, and is what is printed. `count_fvcore` and `count_torch` count the MACs independently, as a
check. torch is imported where it is used.
"""

from convnext_study.cost.closed_form import Cost, CountersDisagree, ImageTooSmall, closed_form
from convnext_study.cost.counter import count, count_fvcore, count_spec, count_torch
from convnext_study.cost.table import table

__all__ = [
    "Cost",
    "CountersDisagree",
    "ImageTooSmall",
    "closed_form",
    "count",
    "count_fvcore",
    "count_spec",
    "count_torch",
    "table",
]
