"""A run's network as files that others can use."""
