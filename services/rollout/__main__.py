"""`python -m services.rollout`."""

import sys

from services.rollout.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
