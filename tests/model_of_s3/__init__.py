"""A model of S3 with the behaviour that public measurements show and emulators lack."""
