"""Find and reprocess the products that a new CRDS context affects."""
