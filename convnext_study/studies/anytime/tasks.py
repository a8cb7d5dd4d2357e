"""What the tasks of this study's runs are called in their records."""

TASKS = {
    "anytime": "convnext_study.studies.anytime.segmentation:AnytimeSegmentation",
    "anytime-deep-supervision": "convnext_study.studies.anytime.controls:DeepSupervision",
    "anytime-random-masks": "convnext_study.studies.anytime.controls:RandomMasks",
}
