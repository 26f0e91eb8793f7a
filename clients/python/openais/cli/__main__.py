"""Run the command ``openais``."""

import sys

from openais.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
