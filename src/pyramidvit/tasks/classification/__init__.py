"""Image classification. `task.py` is the record that the engine takes."""
