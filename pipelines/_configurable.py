"""Everything that a configuration may name."""

from awp_tf import (
    attacks,
    averaging,
    data,
    methods,
    networks,
    perturbations,
    schedules,
    soft_labels,
    threats,
    transforms,
)
from awp_tf.continual.basis import Basis, NoBasis
from awp_tf.continual.early_stop import EarlyStop, NoEarlyStop
from awp_tf.continual.importance import Importance
from awp_tf.continual.settings import Continual, Learner, Sharpness
from awp_tf.continual.tasks import PermutedPixels, SplitClasses
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.evaluation.protocol import Protocol
from awp_tf.export.settings import Export, Limits
from awp_tf.landscape.settings import Landscape
from awp_tf.study.records import Study
from awp_tf.training import recipe, train

CONFIGURABLE = (
    *(data.Chain, data.Cutout, data.NoAugment, data.PadCropFlip, data.RandAugment, data.RandomResizedCrop, data.Rotate),
    *(data.CutMix, data.MixChain, data.MixUp, data.NoMix, data.SmoothLabels),
    *(data.ExtraData, data.NoExtra),
    *(data.digits, data.image_folder, data.npy, data.npz, data.only_classes, data.tfds_source),
    *(networks.application, networks.preact_resnet18, networks.pretrained, networks.small_cnn, networks.wide_resnet),
    *(networks.from_file, networks.vit),
    *(networks.alexnet, networks.conv4, networks.lenet, networks.mlp),
    *(averaging.EMA, averaging.Latest, averaging.SWA),
    *(threats.Linf, threats.L2),
    *(attacks.Clean, attacks.FGSM, attacks.NFGSM, attacks.PGD, attacks.Restarts),
    *(attacks.GaussianStart, attacks.UniformStart, attacks.ZeroStart),
    *(methods.AT, methods.MART, methods.Standard, methods.TRADES, soft_labels.SoftLabelTRADES),
    *(perturbations.AWP, perturbations.Identity, perturbations.RandomPerturbation),
    *(perturbations.ASAM, perturbations.FS, perturbations.LookAhead, perturbations.RAT, perturbations.SAM),
    *(schedules.Constant, schedules.Cosine, schedules.Cyclic, schedules.Linear, schedules.Piecewise, schedules.Warmup),
    *(attacks.APGD, attacks.AutoAttack, attacks.FAB, attacks.LastIterate, attacks.SPSA, attacks.Square),
    *(transforms.ClipByGlobalNorm, transforms.NoTransform),
    *(recipe.Recipe, Measurement, data.Data, train.train, Protocol, Landscape, Study, Export, Limits),
    *(Continual, Learner, Sharpness, Basis, NoBasis, Importance, EarlyStop, NoEarlyStop),
    *(PermutedPixels, SplitClasses),
)
