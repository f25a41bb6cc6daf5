"""Having a bucket that was there before tell EventBridge what is uploaded to it."""
