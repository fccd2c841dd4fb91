#!/usr/bin/env python3
"""The numbers of tests/test_media.c: what Pillow and transformers' processors
make of pictures, and its numpy extractor of sound.

    python make_media.py            writes tests/data/media.txt and sound.bin
    python make_media.py --check    makes it again and compares

Made with Pillow 12.1.1, transformers 5.23.0, torch 2.13.0, numpy 2.4.6. The
pictures and the sounds are formulas, which test_media.c has too. Pillow 12.2
and later go down first for some sizes, and a byte may differ by a level from
what models were trained with.

Lines: resize FILTER WIDTH HEIGHT TO_WIDTH TO_HEIGHT SEED FNV
       size WIDTH HEIGHT: by smart_resize HEIGHT WIDTH (0 0: refused), and by
           LLaVA-OneVision the canvas, the picture on it, and tokens
       native ... and tiles ...: pixel_values, their number and FNV

sound.bin, for each sound, 32-bit numbers: kind, samples, bands, frames that
follow; the mean of all values, a float; their numbers; their values, floats.
The extractor is run without torch."""

import argparse
import math
import os
import sys
import types

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import (
    get_patch_output_size, select_best_resolution)
from transformers.image_utils import ChannelDimension
from transformers.models.llava_onevision import (
    image_processing_pil_llava_onevision as onevision,
    modeling_llava_onevision as model)
from transformers.models.qwen2_vl import (
    image_processing_pil_qwen2_vl as qwen)

HERE = os.path.dirname(os.path.abspath(__file__))


def picture(width, height, seed):
    """Odd seeds: noise. Even ones: waves under a little noise."""
    with np.errstate(over="ignore"):
        n = np.arange(width * height * 3, dtype=np.uint32)
        v = n * np.uint32(2654435761) + np.uint32(seed * 40503)
        v ^= v >> np.uint32(15)
        v *= np.uint32(2246822519)
        v ^= v >> np.uint32(13)
    if seed % 2 == 0:
        c, p = n % 3, n // 3
        t = (p % width * 5 + p // width * 3 * (c + 1) + seed * 11) & 255
        v = np.where(t < 128, 2 * t, 510 - 2 * t) * 3 // 4 + (v & 63)
    return (v & 255).astype(np.uint8).reshape(height, width, 3)


def fnv(a):
    h = 0xcbf29ce484222325
    for b in a.tobytes():
        h = (h ^ b) * 0x100000001b3 & 0xffffffffffffffff
    return h


def resizes(rng):
    fixed = [(1, 1, 1, 1), (1, 1, 7, 5), (1, 97, 3, 13), (97, 1, 13, 3),
             (2, 2, 1, 1), (3, 3, 2, 4), (64, 48, 64, 48), (64, 48, 64, 24),
             (64, 48, 32, 48), (127, 131, 28, 28), (131, 127, 56, 84),
             (640, 3, 28, 28), (3, 640, 28, 28), (500, 333, 384, 384),
             (33, 21, 384, 384), (1021, 53, 504, 28), (50, 50, 49, 51),
             (255, 257, 256, 256), (17, 19, 170, 190), (400, 300, 1, 1)]
    for i in range(60):
        w, h, tw, th = fixed[i % 20] if i < 40 else (
            int(v) for v in 2 ** rng.uniform(0, 8.5, 4))
        f = 2 + (i < 20 or i > 50)
        p = Image.fromarray(picture(w, h, i)).resize((tw, th), f)
        yield f"resize {f} {w} {h} {tw} {th} {i} {fnv(np.array(p)):016x}"


def tokens_of(h, w, pins, tile, side):
    """By the model's own packing."""
    me = types.SimpleNamespace(config=types.SimpleNamespace(
        vision_config=types.SimpleNamespace(image_size=tile,
                                            patch_size=tile // side),
        image_grid_pinpoints=pins))
    n = model.image_size_to_num_patches((h, w), pins, tile)
    rows, _ = model.LlavaOnevisionModel.pack_image_features(
        me, [torch.zeros(n, side * side, 1)], [(h, w)], torch.zeros(1),
        "anyres_max_9")
    return len(rows[0])


def sizes(rng):
    pins = onevision.LlavaOnevisionImageProcessorPil.image_grid_pinpoints
    first = [(w, h) for w in (14, 42, 70, 98, 2786, 2800)
             for h in (14, 42, 70, 98, 994)]
    first += [(1, 199), (1, 200), (1, 201), (201, 1), (5, 1001), (1000, 5),
              (722, 1944), (384, 384), (4, 10000)]
    for i in range(2000):
        w, h = first[i] if i < len(first) else (
            int(v) for v in 2 ** rng.uniform(2, 13, 2))
        try:
            nh, nw = qwen.smart_resize(h, w, 28, 3136, 2073600)
        except ValueError:
            nh = nw = 0
        best = select_best_resolution((h, w), pins)
        on = get_patch_output_size(np.zeros((3, h, w), np.bool_), best,
                                   ChannelDimension.FIRST)
        n = tokens_of(h, w, pins, 384, 24)
        yield f"size {w} {h} {nh} {nw} {best[0]} {best[1]} {on[0]} {on[1]} {n}"


def pixels():
    native = qwen.Qwen2VLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 256, "longest_edge": 6400})
    for i, (w, h) in enumerate([(30, 50), (8, 8), (97, 61), (200, 11),
                                (5, 7)]):
        v = native(picture(w, h, i), return_tensors="np")["pixel_values"]
        yield f"native {w} {h} {i} {v.size} {fnv(v.astype('<f4')):016x}"
    pins = [[32 * a, 32 * b] for a in range(1, 4) for b in range(1, 4)]
    tiles = onevision.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=pins,
        image_mean=[0.5] * 3, image_std=[0.5] * 3)
    for i, (w, h) in enumerate([(30, 50), (32, 32), (97, 61), (200, 11),
                                (11, 200), (5, 7)]):
        v = tiles([[picture(w, h, i)]], return_tensors="np")["pixel_values"]
        yield f"tiles {w} {h} {i} {v.size} {fnv(v.astype('<f4')):016x}"
        pair = [picture(w, h, i), picture(40, 40, i)]
        v = tiles([pair], return_tensors="np")["pixel_values"][0]
        yield f"square {w} {h} {i} {v.size} {fnv(v.astype('<f4')):016x}"


def sound(kind, n):
    """0: silence. 1: tones that come and go, under noise. 2: too loud, so
    clipped. 3: near the floor."""
    i = np.arange(n, dtype=np.uint32)
    with np.errstate(over="ignore"):
        v = i * np.uint32(2654435761)
        v ^= v >> np.uint32(15)
        v *= np.uint32(2246822519)
        v ^= v >> np.uint32(13)
        noise = (v & np.uint32(255)).astype(np.int64) - 128
        a = (i * np.uint32(1931) & 65535).astype(np.int64)
        b = (i * (np.uint32(5000) + i // 4000 * 377) & 65535).astype(np.int64)
    a, b = abs(a - 32768) - 16384, abs(b - 32768) - 16384
    loud = (i // 1600 % 7).astype(np.int64)
    x = a * loud // 8 + b // 4 + noise * 4
    x = [x * 0, x, np.clip(x * 9, -32768, 32767), noise // 64][kind]
    return (x / 32768).astype(np.float32)


def sounds():
    import struct
    from transformers import WhisperFeatureExtractor
    out = b""
    for bands, kind, n in [
            (128, 1, 478400), (128, 1, 480000), (128, 1, 481600),
            (80, 1, 160), (80, 2, 32000), (80, 0, 1), (128, 3, 16000),
            (128, 2, 480000), (80, 1, 16123)]:
        take = WhisperFeatureExtractor(feature_size=bands)
        x = np.zeros(480000, np.float32)
        x[:min(n, 480000)] = sound(kind, n)[:480000]
        v = take._np_extract_fbank_features(x[None], "cpu")[0]
        at = sorted({0, 1, 7, n // 160 - 1, n // 160, n // 160 + 1, 1000, 2997,
                     2998, 2999} & set(range(3000)))
        out += struct.pack("<4If", kind, n, bands, len(at), v.mean(
            dtype=np.float64)) + np.array(at, "<u4").tobytes()
        out += v.T[at].astype("<f4").tobytes()
    return out


def lines():
    rng = np.random.Generator(np.random.PCG64(22))
    yield from resizes(rng)
    yield from sizes(rng)
    yield from pixels()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check", action="store_true")
    check = p.parse_args().check
    data = os.path.join(HERE, "..", "data")
    for name, made in (("media.txt", ("\n".join(lines()) + "\n").encode()),
                       ("sound.bin", sounds())):
        path = os.path.join(data, name)
        if not check:
            with open(path, "wb") as f:
                f.write(made)
        elif open(path, "rb").read() != made:
            sys.exit(name + " is another one")


if __name__ == "__main__":
    main()
