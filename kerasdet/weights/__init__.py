"""Other programs' weight files: readers, name maps, and strict assignment.

A reader (`torch_file`, `caffe_file`, `darknet_file`, `overfeat_file`) turns a file into arrays
under the names that it has there, or into one run of numbers where it has none; a map
(`maps.ssd`, `maps.darknet`, `maps.overfeat`) turns those into arrays under this package's names
and says what network they are for; `assign` puts them into a model.
"""

from kerasdet.weights.assign import Assigned, assign, assign_matching
from kerasdet.weights.caffe_file import CaffeModel, read_caffe
from kerasdet.weights.darknet_cfg import darknet_cfg, save_darknet_cfg
from kerasdet.weights.darknet_file import DarknetFile, read_darknet, write_darknet
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps.darknet import load as load_darknet
from kerasdet.weights.maps.darknet import save as save_darknet
from kerasdet.weights.maps.overfeat import load as load_overfeat
from kerasdet.weights.maps.overfeat import save as save_overfeat
from kerasdet.weights.torch_file import read_torch

__all__ = [
    "Assigned",
    "CaffeModel",
    "DarknetFile",
    "assign",
    "assign_matching",
    "darknet_cfg",
    "load_darknet",
    "load_overfeat",
    "read_caffe",
    "read_darknet",
    "read_torch",
    "recognise",
    "save_darknet",
    "save_darknet_cfg",
    "save_overfeat",
    "write_darknet",
]
