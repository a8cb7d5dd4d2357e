"""The multi-path lightweight CNN, a second study on the same engine (no torch here).

Zhao, Bai, An: "Research on Multi-Path Lightweight Convolutional Neural Network", Computer
Engineering and Applications 2023, 59(6), 134-145. Only its first two pages are available to us,
without a layer table: module and networks are our reconstruction from what they state (parallel
paths of different depths, compressing 1x1 convolutions, the sizes of two networks), and are
labelled so wherever they appear.
"""

from convnext_study.imports import Study

STUDY = Study(
    package=__name__,
    builders={"multipath": "network:build", "multipath-baseline": "network:build_baseline"},
    models="registry:MODELS",
    bench=("bench:measure", "bench:table"),
)
