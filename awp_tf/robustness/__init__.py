"""Robust accuracy that can be trusted: attacks in cascades, checks, verification, resume, and a card."""

from awp_tf.robustness.card import results
from awp_tf.robustness.classifier import Classifier, load, of_keras
from awp_tf.robustness.evaluate import evaluate
from awp_tf.robustness.protocol import Protocol
from awp_tf.robustness.subject import Subject

__all__ = ["Classifier", "Protocol", "Subject", "evaluate", "load", "of_keras", "results"]
