"""S3 as public measurements and trackers say that it behaves, where no emulator shows it."""
