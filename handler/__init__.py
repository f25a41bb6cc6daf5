"""The Lambda function: from an event to a product in S3 and a processing event."""
