"""The heads: from a pyramid of maps to raw outputs."""
