"""The CRDS mirror bucket: made, checked, kept fresh (``python -m infra.mirror --help``)."""
