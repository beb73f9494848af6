"""What trains and measures models: needs torch and much time, and nothing of it runs on a node."""
