"""What the builders of this study's runs are called in their records."""

from convnext_study.studies.pruning.apply import NARROWED, OWN, build_narrowed
from convnext_study.studies.pruning.factors import FACTORED, build_factored
from convnext_study.studies.pruning.networks.build import build

BUILDERS = {OWN: build, NARROWED: build_narrowed, FACTORED: build_factored}
