"""How fast it is on this machine: ratios with their spread, from interleaved repeats.

Absolute rates belong to one machine at one moment. What is compared is therefore measured in
turns, A B, B A, A B, and each turn gives one ratio; its median and extremes are what is told.
"""
