"""Scripts around the product."""
