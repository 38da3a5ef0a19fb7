"""Small modules that know neither a task nor a model size."""
