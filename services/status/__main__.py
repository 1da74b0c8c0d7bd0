"""`python -m services.status`."""

import sys

from services.status.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
