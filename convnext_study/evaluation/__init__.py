"""Accuracy of a network on a validation set: of a run, or of any network of timm or torchvision.

`load_run` and `load_named` load the network and its evaluation transform, `trust` decides what code
a run's record may name for that, `evaluate` counts correct predictions. Nothing is trained, and no
published number is repeated.
"""
