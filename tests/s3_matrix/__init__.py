"""The tests of the handler on other servers of S3 than moto's: ``make s3-matrix``."""
