"""Anytime dense prediction with confidence adaptivity, a study on the same engine (no torch here).

Liu, Xu, Wang, Darrell, Shelhamer: "Anytime Dense Prediction with Confidence Adaptivity", ICLR 2022,
arXiv 2104.00749. A network predicts at several exits, and continues only at the positions where it
is not yet confident. Computation that the authors' code only counts as saved saves time here.
"""

from convnext_study.imports import Study

STUDY = Study(
    package=__name__,
    builders={"anytime": "network:build"},
    tasks={
        "anytime": "segmentation:AnytimeSegmentation",
        "anytime-pose": "segmentation:AnytimePose",
        "anytime-deep-supervision": "segmentation:DeepSupervision",
        "anytime-random-masks": "segmentation:RandomMasks",
    },
    models="registry:MODELS",
    costs="costs:cost_tables",
    bench=("bench:measure", "bench:table"),
)
