"""The deployment package for Lambda: locked wheels and the function's own code."""
