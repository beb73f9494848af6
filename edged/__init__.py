"""Skeleton-based recognition on an untrusted node, decided inside a Trusty enclave."""

__version__ = "0.1.0"
