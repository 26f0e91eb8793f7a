"""The asyncio face of the SDK: the same services, awaited."""
