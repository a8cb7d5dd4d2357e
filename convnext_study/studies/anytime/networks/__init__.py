"""Backbones run stage by stage, heads at their exits, and the anytime network of both."""
