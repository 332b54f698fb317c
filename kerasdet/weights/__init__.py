"""Other programs' weight files: readers, name maps, and strict assignment.

A reader (`torch_file`, `caffe_file`) turns a file into arrays under the names that it has
there; a map (`maps.ssd`) turns those into arrays under this package's names and says what
network they are for; `assign` puts them into a model.
"""

from kerasdet.weights.assign import Assigned, assign, assign_matching
from kerasdet.weights.caffe_file import CaffeModel, read_caffe
from kerasdet.weights.file_format import recognise
from kerasdet.weights.torch_file import read_torch

__all__ = [
    "Assigned",
    "CaffeModel",
    "assign",
    "assign_matching",
    "read_caffe",
    "read_torch",
    "recognise",
]
