"""`python -m services.migrate`."""

import sys

from services.migrate.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
