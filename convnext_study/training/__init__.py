"""One loop that trains every study: recipe, task, data, optimizer, checkpoint, engine.

Nothing here knows of road maps: a `Task` says what to build and what to minimise.
"""
