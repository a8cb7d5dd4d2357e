"""The road map's networks, and building, loading and registering networks with timm."""
