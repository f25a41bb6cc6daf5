"""Pages to look at: flags of products, masks, and their history; static and self-contained."""
