"""The checkpoint service: replicated memory (SAI-AIS-CKPT)."""
