"""`python -m planner`, for where the command is not on the path."""

from planner.cli import main

if __name__ == "__main__":
    main()
