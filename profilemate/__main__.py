"""`python -m profilemate` is the `profilemate` command."""

from profilemate.cli import main

if __name__ == "__main__":
    main()
