"""S3: reads, conditional writes, and products assembled from copied parts."""
