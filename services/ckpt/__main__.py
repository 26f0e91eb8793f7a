"""Start the checkpoint service."""

import sys

from services.ckpt.service import main

if __name__ == "__main__":
    sys.exit(main())
