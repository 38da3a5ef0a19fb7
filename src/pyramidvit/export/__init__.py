"""ONNX, OpenVINO and torch.export files, compared with the model before they are handed over."""
