"""From run records to numbers, tables and figures. Reads records; never imports training."""
