"""``python -m parrot_lite`` is the same program as the console script ``parrot``."""

from parrot_lite.cli import main

if __name__ == "__main__":
    main()
