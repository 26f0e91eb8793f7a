"""Who holds the lease leads; when it dies, another takes over: compare-and-swap and time to live.

Run it several times, also on other nodes: ``python examples/lease.py anna``.
"""

import argparse
import time

from openais import ckpt, errors

TTL_NS = 2_000_000_000  # a leader that has not renewed for so long leads no more
RENEW_S = 0.5


def take(leases: ckpt.Checkpoint, name: str) -> bool:
    """Take the lease if nobody has it; True: we lead."""
    try:
        leases.put("leader", name.encode(), expected=b"", ttl_ns=TTL_NS)
    except errors.FailedOperationError:
        return False
    return True


def lead(leases: ckpt.Checkpoint, name: str, end: float) -> None:
    """Renew the lease until the end; leave when it is lost."""
    print(f"{name} leads", flush=True)
    data, version = leases.read_version("leader")
    while data == name.encode() and time.monotonic() < end:
        time.sleep(RENEW_S)
        try:
            version = leases.put("leader", data, expected=version, ttl_ns=TTL_NS)
        except errors.FailedOperationError:
            print(f"{name} was too slow and leads no more", flush=True)
            return


def main() -> None:
    """Compete for the lease."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    with ckpt.Client() as client, client.open("leases") as leases:
        while time.monotonic() < end:
            if take(leases, options.name):
                lead(leases, options.name, end)
            else:
                time.sleep(RENEW_S)


if __name__ == "__main__":
    main()
