"""The mirror bucket: sync it with CRDS, verify it, keep it fresh."""
