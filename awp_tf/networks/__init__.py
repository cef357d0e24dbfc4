"""Classifiers from [0, 1] pixels to logits, equal to the reference's, and their PyTorch weights; others, fine-tuned."""

from awp_tf.networks.alexnet import alexnet
from awp_tf.networks.application import application
from awp_tf.networks.conv4 import conv4
from awp_tf.networks.lenet import lenet
from awp_tf.networks.mlp import mlp
from awp_tf.networks.preact_resnet import preact_resnet18
from awp_tf.networks.pretrained import from_file, pretrained
from awp_tf.networks.small_cnn import small_cnn
from awp_tf.networks.torch_weights import dump_torch_weights, load_torch_weights
from awp_tf.networks.vit import vit
from awp_tf.networks.wide_resnet import wide_resnet

__all__ = [
    "alexnet",
    "application",
    "conv4",
    "dump_torch_weights",
    "from_file",
    "lenet",
    "load_torch_weights",
    "mlp",
    "preact_resnet18",
    "pretrained",
    "small_cnn",
    "vit",
    "wide_resnet",
]
