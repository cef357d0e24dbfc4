"""A study: several recipes x seeds, one record a run, tables and figures over all of them."""

from awp_tf.study.plan import Study, Trial
from awp_tf.study.record import Record, read_records
from awp_tf.study.summary import write_report

__all__ = ["Record", "Study", "Trial", "read_records", "write_report"]
