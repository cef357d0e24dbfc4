"""From a trained network to a served one: SavedModel for TF Serving, ONNX, with its robustness card."""
