"""What a camera does to a picture: exposure, tint, night, blur, noise, and the compression on its way."""

from typing import NamedTuple, Tuple

import numpy as np

from edged.camera import picture


class Sensor(NamedTuple):
    """gain, gamma : of the brightness      tint : (blue, green, red) factors      grey : 0 colour .. 1 none, at night

    blur : sigma, pixels      smear : pixels and angle of a moved camera      noise : standard deviation, of 255
    vignette : share of light lost in the corners      quality : of JPEG, 0 for none      coarse : pixels are this big
    """

    gain: float = 1.0
    gamma: float = 1.0
    tint: Tuple[float, float, float] = (1.0, 1.0, 1.0)
    grey: float = 0.0
    blur: float = 0.0
    smear: Tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    vignette: float = 0.0
    quality: int = 0
    coarse: float = 1.0


CLEAN = Sensor()


def random_sensor(rng: np.random.Generator) -> Sensor:
    """Most cameras are fair, some are bad, one in eight looks at night by infrared."""
    bad = rng.random() ** 2
    tint = np.exp(rng.normal(0, 0.06, 3))
    night = rng.random() < 0.12
    return Sensor(
        gain=float(np.exp(rng.normal(0, 0.22))), gamma=float(np.exp(rng.normal(0, 0.16))),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])), grey=1.0 if night else rng.uniform(0, 0.3) ** 2 * 4,
        blur=rng.uniform(0, 0.5) + 0.9 * bad * rng.random(),
        smear=(rng.uniform(1, 4), rng.uniform(0, np.pi)) if rng.random() < 0.1 else (0.0, 0.0),
        noise=rng.uniform(0.5, 3) + 9 * bad * rng.random() + 4 * night,
        vignette=rng.uniform(0, 0.25) + 0.3 * night, quality=int(92 - 62 * bad * rng.random()),
        coarse=1.0 if rng.random() < 0.75 else rng.uniform(1.0, 1.8))


def sensed(rng: np.random.Generator, image: np.ndarray, sensor: Sensor) -> np.ndarray:
    """(H, W, 3) uint8 as that camera delivers it."""
    if sensor == CLEAN:
        return image
    height, width = image.shape[:2]
    level = np.linspace(0, 1, 256) ** sensor.gamma * sensor.gain * 255
    table = np.clip(level[:, None] * np.array(sensor.tint), 0, 255).astype(np.float32)
    seen = np.stack([table[:, channel][image[..., channel]] for channel in range(3)], -1)
    if sensor.grey:
        mean = seen @ np.array([0.114, 0.587, 0.299], np.float32)
        seen += sensor.grey * (mean[..., None] - seen)
    if sensor.vignette:
        x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
        seen *= (1 - 0.5 * sensor.vignette * (x * x + (y * y)[:, None]))[..., None]
    if sensor.coarse > 1:
        seen = picture.resized(seen, int(width / sensor.coarse), int(height / sensor.coarse))
    seen = picture.blurred(seen, sensor.blur)
    if sensor.smear[0]:
        seen = picture.smeared(seen, *sensor.smear)
    if sensor.noise:
        # Half of it by pixel, half by the cells in which colour is sensed and denoised.
        shape = seen.shape[:2]
        grain = rng.standard_normal(shape, np.float32)[..., None]
        blotches = picture.resized(rng.standard_normal((shape[0] // 3 + 1, shape[1] // 3 + 1, 3), np.float32),
                                   shape[1], shape[0])
        seen += sensor.noise * (0.8 * grain + 0.7 * blotches)
    if sensor.coarse > 1:
        seen = picture.resized(seen, width, height)
    seen = np.clip(seen + 0.5, 0, 255).astype(np.uint8)
    return picture.compressed(seen, sensor.quality) if sensor.quality else seen
