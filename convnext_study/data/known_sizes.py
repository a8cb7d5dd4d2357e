"""Image sizes that are known without opening the data, and so without importing torch."""

DIGITS = 32
