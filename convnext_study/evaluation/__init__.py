"""Accuracy of a network on a validation set: a run's, or any that timm or torchvision has.

`load_run` and `load_named` load the network and its evaluation transform, `trust` says what code a
run's record may name for that, `evaluate` counts correct predictions. Nothing is trained, and no
published number is repeated.
"""
