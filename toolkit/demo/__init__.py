"""A local page: one picture, your labels, and what student and teacher make of them."""
