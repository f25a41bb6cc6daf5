"""Every call to S3, and nothing but S3."""
