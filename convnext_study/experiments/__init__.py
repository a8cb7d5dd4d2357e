"""What to train: road maps, studies from files, their runs, costs and caveats."""
