"""An archive's catalogue, and which of its products a new context would make otherwise."""
