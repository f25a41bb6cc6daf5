"""The bundle, which is the deployment package for Lambda: locked wheels and our code."""
