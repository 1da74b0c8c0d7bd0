"""`python -m services.volume`."""

import sys

from services.volume.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
