"""Start the membership service."""

import sys

from services.clm.service import main

if __name__ == "__main__":
    sys.exit(main())
