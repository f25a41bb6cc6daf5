"""Tests of the handler on S3 servers other than moto: ``make s3-matrix``."""
