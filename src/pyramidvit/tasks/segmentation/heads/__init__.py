"""The heads: from maps of features to a map of logits for each class."""
