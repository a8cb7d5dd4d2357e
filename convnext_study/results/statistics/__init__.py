"""Statistics of a study's numbers: intervals, tests, power. Nothing here knows a record."""
