"""Draws one brushed metal part: texture, light, harmless look-alikes, and one kind of defect."""

import cv2
import numpy as np

VERSION = 1  # raise it when the pictures change, so that old folders are told from new ones
CLASSES = ("crack", "good", "inclusion", "pit", "scratch", "stain")
NEAR_COPY_FORMS = ("resized", "recompressed", "mirrored", "brightened")
TINT = {"north": (1.0, 1.0, 1.0), "south": (0.97, 1.0, 1.05), "west": (1.05, 1.0, 0.95)}  # red, green, blue
GAIN = {"day": 1.0, "night": 0.85}

Rng = np.random.Generator


def part(label: str, size: int, camera: str, shift: str, hard: float, rng: Rng) -> np.ndarray:
    """One photograph: uint8, shape (size, size, 3), RGB; `hard`, 0 to 1, is how much of a defect's contrast is lost."""
    angle = rng.uniform(-0.3, 0.3) + (np.pi / 2 if rng.random() < 0.5 else 0)
    surface = brushed_metal(size, angle, rng)
    surface = look_alikes(surface, angle, rng)
    image = np.repeat(surface[:, :, None], 3, axis=2)
    if label != "good":
        strength = rng.uniform(0.5, 1.2) * (1 - hard)
        image = DEFECTS[label](image, strength, rng)
    image *= light(size, rng)[:, :, None] * GAIN[shift] * np.array(TINT[camera])
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.6))
    grain = rng.normal(0, 5 if shift == "night" else 3, image.shape[:2])
    return np.clip(np.rint(image + grain[:, :, None]), 0, 255).astype(np.uint8)


def brushed_metal(size: int, angle: float, rng: Rng) -> np.ndarray:
    """Noise drawn out along one direction, as polishing leaves it."""
    wide = 2 * size  # room to rotate without empty corners
    noise = 9 * drawn_out(wide, size / 6, 0.6, rng) + 6 * drawn_out(wide, size / 2, 2.5, rng)
    turn = cv2.getRotationMatrix2D((wide / 2, wide / 2), np.degrees(angle), 1.0)
    turned = cv2.warpAffine(noise, turn, (wide, wide), flags=cv2.INTER_LINEAR)
    start = (wide - size) // 2
    return rng.uniform(120, 165) + turned[start : start + size, start : start + size]


def drawn_out(size: int, along: float, across: float, rng: Rng) -> np.ndarray:
    """Smooth noise of standard deviation 1, `along` pixels long and `across` pixels wide."""
    narrow = 8  # smooth along x, so an eighth of the columns says it all and is quicker to blur
    noise = rng.standard_normal((size, size // narrow), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigmaX=along / narrow, sigmaY=across)
    return cv2.resize(smooth / smooth.std(), (size, size), interpolation=cv2.INTER_CUBIC)


def light(size: int, rng: Rng) -> np.ndarray:
    """A slope of light across the part and one soft reflection."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    direction = rng.uniform(0, 2 * np.pi)
    slope = 1 + rng.uniform(0.05, 0.25) * (np.cos(direction) * x + np.sin(direction) * y)
    centre_x, centre_y = rng.uniform(-0.5, 0.5, 2)
    distance = ((x - centre_x) ** 2 + (y - centre_y) ** 2) / rng.uniform(0.05, 0.3)
    return slope + rng.uniform(0, 0.15) * np.exp(-distance)


def look_alikes(surface: np.ndarray, angle: float, rng: Rng) -> np.ndarray:
    """What is not a defect: long polishing lines in one direction, and specks of dust."""
    size = surface.shape[0]
    for _ in range(rng.poisson(1.5)):
        centre = rng.uniform(0, size, 2)
        along = np.array([np.cos(-angle), np.sin(-angle)]) * size * 2
        mask = lines(size, [np.array([centre - along, centre + along])], 1)
        surface = surface + mask * rng.choice([-1, 1]) * rng.uniform(8, 20)
    for _ in range(rng.poisson(3)):
        x, y = rng.integers(0, size, 2)
        surface[y, x] += rng.choice([-1, 1]) * rng.uniform(15, 40)
    return surface


def lines(size: int, strokes: list[np.ndarray], width: int) -> np.ndarray:
    """An antialiased mask from 0 to 1 of strokes; each an array of points (n, 2) as x, y in pixels."""
    mask = np.zeros((size, size), np.uint8)
    points = [np.rint(stroke * 16).astype(np.int32) for stroke in strokes]
    cv2.polylines(mask, points, False, 255, width, cv2.LINE_AA, shift=4)
    return mask / 255.0


def scratch(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """A tool slid over the part: one long, gently bent, bright line with a dark edge."""
    size = image.shape[0]
    length = rng.uniform(0.45, 0.9) * size
    direction = rng.uniform(0, 2 * np.pi)
    t = np.linspace(-0.5, 0.5, 16)
    bend = rng.uniform(-0.15, 0.15) * (t**2 - 0.08)
    along, across = np.array([np.cos(direction), np.sin(direction)]), np.array([-np.sin(direction), np.cos(direction)])
    stroke = size * rng.uniform(0.35, 0.65, 2) + length * (t[:, None] * along + bend[:, None] * across)
    bright = lines(size, [stroke], 1) * (0.6 + 0.4 * np.sin(np.pi * (np.mgrid[0:size, 0:size][1] / size)))
    dark = lines(size, [stroke + across * 1.5], 1)
    return image + strength * (55 * bright - 25 * dark)[:, :, None]


def crack(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """The metal has given way: a dark, jagged line that forks."""
    size = image.shape[0]
    direction = rng.uniform(0, 2 * np.pi)
    trunk = walk(size * rng.uniform(0.25, 0.75, 2), direction, rng.uniform(0.4, 0.7) * size, rng)
    strokes = [trunk]
    for _ in range(rng.integers(1, 4)):
        fork = trunk[rng.integers(2, len(trunk) - 1)]
        strokes.append(
            walk(fork, direction + rng.choice([-1, 1]) * rng.uniform(0.6, 1.1), rng.uniform(0.1, 0.25) * size, rng)
        )
    return image - strength * 60 * lines(size, strokes, 1)[:, :, None]


def walk(start: np.ndarray, direction: float, length: float, rng: Rng) -> np.ndarray:
    """A jagged path of short steps, turned back towards the middle of the path at its start."""
    steps = max(4, int(length / 4))
    headings = direction + rng.normal(0, 0.65, steps)
    moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / steps)
    return np.vstack([start, start + np.cumsum(moves, axis=0)]) - moves.sum(axis=0) / 2


def pit(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Corrosion has eaten small round holes: dark, with the light on the far rim."""
    size = image.shape[0]
    y, x = np.mgrid[0:size, 0:size]
    centre = size * rng.uniform(0.2, 0.8, 2)
    for _ in range(rng.integers(2, 6)):
        at = centre + rng.normal(0, 0.1 * size, 2)
        radius = rng.uniform(0.015, 0.035) * size
        distance = np.hypot(x - at[0], y - at[1])
        hole = np.clip(radius + 0.5 - distance, 0, 1)
        rim = np.exp(-((distance - radius - 0.7) ** 2)) * np.clip((x - at[0] + y - at[1]) / (2 * radius), 0, 1)
        image = image + strength * (-60 * hole + 35 * rim)[:, :, None]
    return image


def inclusion(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Slag rolled into the sheet: one dark, angular flake with a sharp edge."""
    size = image.shape[0]
    corners = rng.integers(5, 9)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.04, 0.11, corners) * size
    outline = np.stack([np.cos(angles) * radii * rng.uniform(0.5, 1), np.sin(angles) * radii], axis=1)
    turn = rng.uniform(0, np.pi)
    outline = outline @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mask = np.zeros((size, size), np.uint8)
    points = np.rint((outline + size * rng.uniform(0.2, 0.8, 2)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, shift=4)
    speckle = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 1.0)
    return image + (mask / 255.0 * strength * (-38 + 30 * speckle))[:, :, None]


def stain(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Oil or water has dried: a wide patch with a soft, uneven edge, browner than the metal."""
    size = image.shape[0]
    y, x = np.mgrid[0:size, 0:size] / size
    centre_x, centre_y = rng.uniform(0.25, 0.75, 2)
    uneven = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), size / 10)
    distance = np.hypot(x - centre_x, (y - centre_y) * rng.uniform(0.7, 1.4)) + 0.05 * uneven / uneven.std()
    patch = 1 / (1 + np.exp((distance - rng.uniform(0.14, 0.26)) / 0.03))
    brown = np.array([0.04, 0.09, 0.16]) * strength
    return image * (1 - patch[:, :, None] * brown)


DEFECTS = {"scratch": scratch, "crack": crack, "pit": pit, "inclusion": inclusion, "stain": stain}


def near_copy(image: np.ndarray, form: str) -> np.ndarray:
    """The same photograph as it comes back from another person: one of `NEAR_COPY_FORMS`."""
    if form == "resized":
        return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    if form == "mirrored":
        return np.ascontiguousarray(image[:, ::-1])
    if form == "brightened":
        return np.clip(image * 1.2, 0, 255).astype(np.uint8)
    return image
