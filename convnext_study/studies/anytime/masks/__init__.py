"""Where a network computes: masks, the convolutions that obey them, and what they save."""
