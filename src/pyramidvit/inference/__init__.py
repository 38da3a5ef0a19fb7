"""Inference: a model in the form that runs fastest here, compared with the model as written."""
