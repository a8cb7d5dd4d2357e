"""Statistics of a study's numbers: intervals, tests, power. Independent of records."""
