"""One loop that trains every study.

Nothing here depends on the road map: a `Task` says what to build and what to minimise.
"""
