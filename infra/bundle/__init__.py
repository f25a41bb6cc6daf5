"""The bundle that is deployed: locked wheels for Lambda's Python, and the function's own code."""
