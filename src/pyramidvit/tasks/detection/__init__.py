"""Detection: boxes, and masks where the data has them."""
