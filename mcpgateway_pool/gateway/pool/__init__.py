"""Releases 1.0.0b2 to 1.0.0rc of the gateway: the pool behind the stand-in module."""
