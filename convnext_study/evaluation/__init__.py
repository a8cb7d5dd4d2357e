"""What a network is worth on a validation set: a run's, or any that timm or torchvision has.

`subjects` finds the network and how its images must be prepared, `trust` says what a run's record
may have called for that, `judging` counts what the network gets right. Nothing is trained, and no
number of anybody else's is repeated.
"""
