"""Work on many rows a piece at a time, where the back end would keep every intermediate result."""

import keras
from keras import ops

# Numbers of a result in one piece: 16 MB, which stay in the last cache of a processor.
_PIECE = 2**22


def in_pieces(function, arrays, *, numbers):
    """`function(*arrays)`, computed for some rows of all arrays after the other.

    TensorFlow carries out operation by operation, and what stands between two of them passes
    through memory; in pieces it is several times faster and takes a fraction of the room. XLA,
    which JAX uses, joins the operations by itself, and there all rows are given at once.

    Args:
        function: from arrays of n rows to an array of n rows; rows do not mix, and a row
            of zeros does no harm.
        arrays: tensors (N, ...); N need not be known.
        numbers: in one row of the result.

    Returns:
        What the function returns for all N rows.
    """
    rows = max(_PIECE // numbers, 1)
    known = arrays[0].shape[0]
    if keras.backend.backend() != "tensorflow" or (known is not None and known <= rows):
        return function(*arrays)
    count = ops.shape(arrays[0])[0]
    pieces = ops.maximum(-(-count // rows), 1)

    def cut(array):
        rest = ((0, pieces * rows - count), *((0, 0),) * (len(array.shape) - 1))
        return ops.reshape(ops.pad(array, rest), (pieces, rows, *array.shape[1:]))

    done = ops.map(lambda given: function(*given), tuple(cut(array) for array in arrays))
    return ops.reshape(done, (-1, *done.shape[2:]))[:count]
