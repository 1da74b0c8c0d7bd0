"""`python -m services.doctor`."""

import sys

from services.doctor.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
