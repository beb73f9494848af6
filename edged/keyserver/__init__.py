"""The key server of one party: evidence in, grants out, over TLS, for a fleet."""
