__version__ = "0.0.test"
from torch import cuda
