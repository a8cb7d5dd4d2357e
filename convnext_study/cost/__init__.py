"""What a network costs: multiply-accumulates (MACs), parameters and activations for one image.

Only convolution and linear layers count, which is the rule behind every GFLOPs figure of the
paper. ``count`` takes any module and is the number that is printed; `closed_form`, `count_fvcore`
and `count_torch` reach the MACs by other ways, to check it. torch is imported where it is used.
"""

from convnext_study.cost.amount import Cost, CountersDisagree, ImageTooSmall
from convnext_study.cost.arithmetic import closed_form
from convnext_study.cost.crosscheck import count_fvcore, count_torch
from convnext_study.cost.hooks import count, count_spec
from convnext_study.cost.rows import table

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
