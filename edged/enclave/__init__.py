"""The normal world's half of the trust boundary: wire, transport, client, host port."""
