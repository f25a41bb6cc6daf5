"""A list of requests that is sent to a queue and followed to its end, whoever goes away."""
