"""What a network is worth on a validation set: a run's, or any that timm or torchvision has.

`subjects` finds the network and how its images must be prepared, `judging` counts what it gets
right. Nothing is trained, and no number of anybody else's is repeated.
"""
