"""A stack at a glance."""
