"""Who is on the ring: print each change, and what any node has to say to the watchers."""

from __future__ import annotations

import argparse
import select
import time

from openais import evs

GROUP = "watchers"


def changed(change: evs.ConfigurationChange) -> None:
    """Print a configuration of the ring."""
    kind = change.kind.name.lower()
    print(f"{kind} {change.members} left {change.left} joined {change.joined}", flush=True)


def delivered(message: evs.Delivery) -> None:
    """Print what a node says."""
    print(f"node {message.node_id}: {message.payload.decode()}", flush=True)


def main() -> None:
    """Watch for a while; say something first, if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--say", help="to all watchers of the ring")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with evs.Evs(delivered, changed) as ring:
        ring.join([GROUP])
        if options.say:
            ring.mcast_joined(options.say.encode(), wait=5)
        end = time.monotonic() + options.seconds
        while (left := end - time.monotonic()) > 0:
            select.select([ring], [], [], left)
            ring.dispatch()


if __name__ == "__main__":
    main()
