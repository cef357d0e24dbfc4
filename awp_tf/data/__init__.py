"""Images and labels: where they come from, how they are augmented, how they become batches."""

from awp_tf.data.array_files import npy, npz
from awp_tf.data.augment import Augment, Chain, Cutout, NoAugment, PadCropFlip, Rotate
from awp_tf.data.batches import Batches, hold_out, ordered
from awp_tf.data.extra import ExtraData, NoExtra
from awp_tf.data.mixed import MixedBatches
from awp_tf.data.mixing import CutMix, Mix, MixChain, MixUp, NoMix, SmoothLabels
from awp_tf.data.rand_augment import RandAugment
from awp_tf.data.resized_crop import RandomResizedCrop
from awp_tf.data.settings import Data
from awp_tf.data.sources import Source, digits, image_folder, tfds_source
from awp_tf.data.splits import Split
from awp_tf.data.subsets import only_classes

__all__ = [
    "Augment",
    "Batches",
    "Chain",
    "CutMix",
    "Cutout",
    "Data",
    "ExtraData",
    "Mix",
    "MixChain",
    "MixUp",
    "MixedBatches",
    "NoAugment",
    "NoExtra",
    "NoMix",
    "PadCropFlip",
    "RandAugment",
    "RandomResizedCrop",
    "Rotate",
    "SmoothLabels",
    "Source",
    "Split",
    "digits",
    "hold_out",
    "image_folder",
    "npy",
    "npz",
    "only_classes",
    "ordered",
    "tfds_source",
]
