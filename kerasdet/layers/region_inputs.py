"""What every layer that pools regions is given: maps and regions, checked."""

from keras import ops

from kerasdet.errors import InputError


def check_pooling(layer: str, pool_size, spatial_scale):
    """Refuses a grid or a scale that says nothing.

    Args:
        layer: name of the layer's class.
        pool_size: bins along each side.
        spatial_scale: cells of the map a pixel.

    Raises:
        InputError: unless both are positive, the first a whole number.
    """
    if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
        raise InputError(f"{layer} wants a pool_size from 1 on, not {pool_size!r}.")
    if not spatial_scale > 0:
        raise InputError(
            f"{layer} wants a spatial_scale above 0, cells of the map for one pixel, "
            f"not {spatial_scale!r}."
        )


def both(maps, regions):
    """The two inputs, or their shapes, given one by one or as one tuple or list."""
    return maps if regions is None else (maps, regions)


def pooled_shape(layer: str, maps_shape, regions_shape, pool_size) -> tuple:
    """(B, R, p, p, C) for maps (B, H, W, C) and regions (B, R, 4).

    Args:
        layer: name of the layer's class.
        maps_shape: of the maps.
        regions_shape: of the regions.
        pool_size: p.

    Raises:
        InputError: for other shapes, or unknown channels.
    """
    maps_shape, regions_shape = tuple(maps_shape), tuple(regions_shape)
    if len(maps_shape) != 4 or maps_shape[-1] is None:
        raise InputError(
            f"{layer} wants maps of shape (B, H, W, C) with C known, not {maps_shape}."
        )
    if len(regions_shape) != 3 or regions_shape[-1] != 4:
        raise InputError(f"{layer} wants regions of shape (B, R, 4), not {regions_shape}.")
    if None not in (maps_shape[0], regions_shape[0]) and maps_shape[0] != regions_shape[0]:
        raise InputError(
            f"{layer} wants regions for each map, not {regions_shape[0]} sets of regions "
            f"for {maps_shape[0]} maps."
        )
    batch = regions_shape[0] if maps_shape[0] is None else maps_shape[0]
    return (batch, regions_shape[1], pool_size, pool_size, maps_shape[-1])


def given_regions(regions):
    """Which rows (N,) of regions (N, 4) are regions: neither four -1, the padding, nor with a NaN."""
    padding = ops.all(regions == -1, axis=-1)
    return ops.logical_and(ops.logical_not(padding), ops.all(regions == regions, axis=-1))


def image_of_each(regions):
    """int32 (B * R,): which image each row of regions (B, R, 4) belongs to, in their order."""
    batch, count, _ = ops.shape(regions)
    images = ops.arange(batch, dtype="int32")[:, None]
    return ops.reshape(ops.broadcast_to(images, (batch, count)), (-1,))
