"""Hints for keywords that are not knobs of a model but mean something elsewhere: data only."""

from collections.abc import Mapping

_SENSOR = "set it in the sensor: sensor=SensorSpec(collection, bands, {}=...)"
_PLACE = "set it in the place: spatial=PointBuffer(lon=..., lat=..., buffer_m=...)"
_DAYS = 'set it in the window: temporal=TemporalSpec.range("2022-06-01", "2022-09-01")'
_CKPT = 'ckpt="model.pt" names a file of weights'
_OUTPUT = 'OutputSpec.pooled("mean"), .pooled("max") or .grid(), as output='
REMOVED: Mapping[str, str] = {
    "compile": "leave it out: it was removed, as torch.compile took twice the time on a CPU and no GPU had shown a gain"
}
"""Knob of an earlier version -> why it was removed. Its variables are refused with the same text."""
HINTS: Mapping[str, str] = {
    **REMOVED,
    **dict.fromkeys(
        ("scale", "resolution", "gsd", "gsd_m"), f"the pixel size belongs to the sensor: {_SENSOR.format('scale_m')}"
    ),
    **{name: _SENSOR.format(name) for name in ("scale_m", "collection", "cloudy_pct", "composite", "fill_value")},
    **{name: _SENSOR.format(name) for name in ("cloud_mask", "orbit_pass", "instrument_mode")},
    **dict.fromkeys(("lon", "lat", "buffer_m", "buffer", "radius", "point", "bbox", "geometry"), _PLACE),
    **dict.fromkeys(("start", "end", "start_date", "end_date", "date", "year", "datetime"), _DAYS),
    **dict.fromkeys(("checkpoint", "ckpt_path", "checkpoint_path", "ckpt_data", "weights"), _CKPT),
    **dict.fromkeys(("pooling", "pool", "pooled", "grid"), _OUTPUT),
    "modalities": 'modality="S2L2A", or several: modality=["S2L2A", "S1GRD"]',
    **dict.fromkeys(("model_bands", "channels", "band_names"), 'bands=["B2", "B3"] or bands=["BLUE", "GREEN"]'),
    **dict.fromkeys(("image_size", "img_size", "image_px", "size"), "img is the side of the input, in pixels"),
    **dict.fromkeys(("norm", "normalization", "standardize"), "normalize selects how pixels are standardised"),
    **dict.fromkeys(("batch_size", "batch"), "set RS_EMBED_BATCH, or leave it out for as many as memory allows"),
    **dict.fromkeys(("workers", "num_workers"), "fetch_workers sets how many chips are fetched at the same time"),
    "image": "input_chw takes an array of your own",
    "project": "EarthEngine(project=...) as backend, or RS_EMBED_GEE_PROJECT",
    "offset": "backend=LocalRasters(path, offset=...)",
    "patch_size": "the patch size of this model is fixed; describe_model states it",
    "flash_attn": "leave it out: attention is exact, and as fast as the device allows",
    "dtype": 'precision="bf16" computes in half precision; OutputSpec and files are float32',
    "out_indices": "only the tokens of the last block are returned",
}
"""Keyword of another library, or of another place in ours -> what to use here."""
