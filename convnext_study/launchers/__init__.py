"""From runs to machines: which runs a request means, and where they are trained."""
