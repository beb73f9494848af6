"""The bridge: clips to the enclave, masked products to an untrusted accelerator, records to the spool."""
