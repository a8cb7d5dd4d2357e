"""Speed on this machine: ratios with their spread, from interleaved repeats.

Absolute rates belong to one machine at one moment. What is compared is therefore interleaved,
A B, B A, A B, and each repeat gives one ratio; their median and extremes are reported.
"""
