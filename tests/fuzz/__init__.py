"""Parsers of what strangers send, under inputs that are nearly right."""
