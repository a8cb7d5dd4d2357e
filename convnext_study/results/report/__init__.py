"""The report of a folder of runs: a page, figures and tables, from the records alone."""
