"""Data: sources, samples, splits, checks, corruptions."""

from equipoise.data.checks import DataReport, Repeats, SplitReport, hash_rows
from equipoise.data.corruptions import CORRUPTIONS, corrupt, corrupt_rows, corruptions_of
from equipoise.data.layout import OUTSIDE, Layout, stratum, with_prompt
from equipoise.data.prepare import PreparedData, prepare_data
from equipoise.data.rows import Rows
from equipoise.data.samples import SAMPLE_SCHEME, sample_model
from equipoise.data.sources import load_rows
from equipoise.data.splits import stratified_sample, stratified_split

__all__ = [
    "CORRUPTIONS",
    "OUTSIDE",
    "SAMPLE_SCHEME",
    "DataReport",
    "Layout",
    "PreparedData",
    "Repeats",
    "Rows",
    "SplitReport",
    "corrupt",
    "corrupt_rows",
    "corruptions_of",
    "hash_rows",
    "load_rows",
    "prepare_data",
    "sample_model",
    "stratified_sample",
    "stratified_split",
    "stratum",
    "with_prompt",
]
