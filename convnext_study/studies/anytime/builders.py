"""What the builders of this study's runs are called in their records."""

from convnext_study.studies.anytime.networks import network

BUILDERS = {"anytime": network.build}
