"""Released weights of the road map's two ends."""
