"""Bands of images: choosing, naming, joining."""

from gee_server.errors import EarthEngineError
from gee_server.image import Band, Element, Image
from gee_server.interpreter import function
from gee_server.values import constant_image, type_name


@function("Image.select")
def _select(input: Image, bandSelectors: list, newNames) -> Image:
    return input.select(bandSelectors, newNames)


@function("Image.rename")
def _rename(input: Image, names: list) -> Image:
    if len(names) != len(input.bands):
        raise EarthEngineError(
            f"Image.rename: The number of names ({len(names)}) must match the number of bands ({len(input.bands)})."
        )
    return input.select(input.names, names, "Image.rename")


@function("Image.slice")
def _slice(image: Image, start: int, end) -> Image:
    return image.derived(image.bands[start:end], keep=True)


def joined(first: Image, more: Image, *, overwrite: bool = False) -> Image:
    """The bands of both; a name that is taken gets a number, or replaces."""
    bands = {band.name: band for band in first.bands}
    for band in more.bands:
        name, number = band.name, 0
        while name in bands and not overwrite:
            number += 1
            name = f"{band.name}_{number}"
        bands[name] = band if name == band.name else Band(name, band.node)
    return first.derived(list(bands.values()), keep=True)


@function("Image.addBands")
def _add_bands(dstImg: Image, srcImg: Image, names, overwrite) -> Image:
    chosen = srcImg if names is None else srcImg.select(names, asker="Image.addBands")
    return joined(dstImg, chosen, overwrite=bool(overwrite))


@function("Image.cat")
def _cat(images: list) -> Image:
    if not images:
        return Image({})
    first, *rest = [one if isinstance(one, Image) else constant_image(one) for one in images]
    for more in rest:
        first = joined(first, more)
    return first


@function("Image.constant")
def _constant(value) -> Image:
    if isinstance(value, Image):
        return value
    if not isinstance(value, int | float | list | dict):
        raise EarthEngineError(f"Image.constant: Cannot make an image of {type_name(value)}.")
    return constant_image(value)


@function("Image.bandNames")
def _band_names(image: Image) -> list:
    return list(image.names)


@function("Image.bandTypes")
def _band_types(image: Image) -> dict:
    return {band.name: band.node.type for band in image.bands}


@function("Image.load")
def _load(world, id: str, version) -> Image:
    return world.image(id)


_load.wants_world = True


@function("Image.linkCollection")
def _link(input: Image, imageCollection, linkedBands, linkedProperties, matchPropertyName: str) -> Image:
    match = imageCollection.matching(matchPropertyName, input.properties.get(matchPropertyName))
    linked = input
    if linkedBands is not None:
        selectors = linkedBands if isinstance(linkedBands, list) else [linkedBands]
        linked = joined(linked, _linked_bands(match, imageCollection, selectors), overwrite=True)
    if linkedProperties is not None:
        names = linkedProperties if isinstance(linkedProperties, list) else [linkedProperties]
        found = match.properties if match is not None else {}
        linked = linked.with_properties({**linked.properties, **{name: found.get(name) for name in names}})
    return linked


def _linked_bands(match: Element | None, collection, selectors: list) -> Image:
    """The match's bands; without one, the bands of another scene, all masked."""
    if match is not None:
        return match.select(selectors, asker="Image.linkCollection")
    if not collection.elements:
        raise EarthEngineError("Image.linkCollection: The linked collection is empty.")
    from gee_server.functions.image_values import masked_everywhere  # noqa: PLC0415 - the two need each other

    return masked_everywhere(collection.elements[0].select(selectors, asker="Image.linkCollection"))
