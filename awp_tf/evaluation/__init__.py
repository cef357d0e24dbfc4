"""Robust accuracy that can be trusted: attacks in cascades, checks, verification, resume, and a card."""

from awp_tf.evaluation.audit import evaluate
from awp_tf.evaluation.card import results
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.subject import Subject
from awp_tf.networks.classifier import Classifier, load, of_keras

__all__ = ["Classifier", "Protocol", "Subject", "evaluate", "load", "of_keras", "results"]
