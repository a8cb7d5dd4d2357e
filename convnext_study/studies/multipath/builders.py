"""What the builders of this study's runs are called in their records."""

from convnext_study.studies.multipath import baselines, network

BUILDERS = {"multipath": network.build, "multipath-baseline": baselines.build}
