"""Whether an S3 keeps the promises that the function relies on."""
