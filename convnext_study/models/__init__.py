"""Networks: the road map's, and how others are built, loaded and registered with timm."""
