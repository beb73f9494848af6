"""The attacks of DESIGN section 2, mounted on the running applications."""
