"""Start totemd."""

import sys

from openais.node.program import main
from totemd.configured import CHECKS
from totemd.daemon import Daemon

if __name__ == "__main__":
    sys.exit(main("totemd", lambda config: Daemon(config).run(), CHECKS))
