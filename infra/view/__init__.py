"""Pages that show the flags of products and masks."""
