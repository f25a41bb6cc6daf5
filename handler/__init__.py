"""The Lambda function around the step: what came in, which mask, where the bytes go."""
