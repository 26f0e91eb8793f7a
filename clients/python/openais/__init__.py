"""SDK for openais: checkpoints, cluster membership and group messaging that survive faults.

Import the service you need: ``openais.ckpt``, ``openais.clm``, ``openais.cpg``, or their asyncio
faces in ``openais.aio``. Importing this package alone loads no socket library.
"""

__version__ = "0.1.0"
