"""From run records to rows, statistics and attributions. Reads records; never imports training."""
