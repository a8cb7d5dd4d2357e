"""Pruning against training from scratch: networks and methods (no torch here).

Liu, Sun, Zhou, Huang, Darrell: "Rethinking the Value of Network Pruning", ICLR 2019, arXiv
1810.05270: does a pruned architecture, trained from random weights, do as well as the pruned and
fine-tuned network? The paper's text was not available to us; every published number stands in
``published.toml`` with its source.
"""
