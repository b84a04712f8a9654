"""``python -m tasks.cli``: the same as ``nss-train``."""

from tasks.cli import main

if __name__ == "__main__":
    main()
