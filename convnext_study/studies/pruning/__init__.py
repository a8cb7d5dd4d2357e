"""Pruning against training from scratch. This file imports no torch.

Liu, Sun, Zhou, Huang, Darrell: "Rethinking the Value of Network Pruning", ICLR 2019, arXiv
1810.05270: does a pruned architecture, trained from random weights, do as well as the pruned and
fine-tuned network? The paper's text was not available to us; ``published.toml`` has every published
number with its source.
"""

from convnext_study.imports import Study

STUDY = Study(
    package=__name__,
    builders={
        "pruning": "families:build",
        "pruning-narrowed": "removal:build_narrowed",
        "pruning-factored": "methods.selection:build_factored",
    },
    tasks={"pruning-arm": "tasks:TrainingArm", "pruning-sparse": "tasks:SparseTraining"},
    models="published:MODELS",
    costs="costs:cost_tables",
)
