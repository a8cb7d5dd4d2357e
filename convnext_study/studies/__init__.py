"""Studies with their own networks. They import the core, and never each other."""

from convnext_study.studies import anytime, multipath, pruning

STUDIES = {"multipath": multipath.STUDY, "anytime": anytime.STUDY, "pruning": pruning.STUDY}
