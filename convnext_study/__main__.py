"""``python -m convnext_study`` is ``convnext-study``."""

from convnext_study.cli import main

if __name__ == "__main__":
    main()
