"""The untrusted accelerator: the contract of its masked products, and who keeps it."""
