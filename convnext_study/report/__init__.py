"""The report of a folder of runs: a page, figures and tables, from its records alone."""
