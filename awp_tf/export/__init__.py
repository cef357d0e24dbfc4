"""From a trained network to a served one: SavedModel for TF Serving, ONNX, with its robustness card."""

from awp_tf.export.card import Product, read_card
from awp_tf.export.export import Export, export
from awp_tf.export.onnx import export_onnx
from awp_tf.export.signatures import Limits

__all__ = ["Export", "Limits", "Product", "export", "export_onnx", "read_card"]
