"""Anytime dense prediction with confidence adaptivity, a study on the same engine (no torch here).

Liu, Xu, Wang, Darrell, Shelhamer: "Anytime Dense Prediction with Confidence Adaptivity", ICLR 2022,
arXiv 2104.00749. A network answers at several exits, and computes further only at the positions
where it is not yet confident. What the authors' code counts as saved is saved here in time too.
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
