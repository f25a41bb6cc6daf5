"""The step on this machine: local files or S3 objects in, local products out."""
