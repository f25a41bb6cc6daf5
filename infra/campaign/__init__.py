"""A job: requests that are sent to a queue and followed to their end."""
