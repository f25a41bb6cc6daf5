"""`sam local invoke` and `sam local start-lambda` of the built bundle: ``make sam-local``."""
