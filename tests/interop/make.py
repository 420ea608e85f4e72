#!/usr/bin/env python3
"""A small CapsNet in PyTorch: writes its weights and what it computes, and checks what comes back.

  make.py DIR [--seed N]   writes DIR/{component,type}.safetensors (weights) and
                           DIR/{component,type}.io.safetensors (images and results)
  make.py --check DIR      loads DIR/{component,type}.back.safetensors into the same networks and
                           compares their results with those of the .io files

Needs PyTorch and NumPy; safetensors files are written and read by hand.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from torch import nn

IMAGE, TYPES, E, J, D, ITERATIONS = (2, 10, 9), 2, 4, 3, 5, 3


def save(path, tensors):
    header, data = {}, b""
    for name, t in tensors.items():
        raw = np.ascontiguousarray(t.detach().numpy().astype("<f4")).tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def load(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    out = {}
    for name, h in header.items():
        begin, end = h["data_offsets"]
        x = np.frombuffer(raw[8 + n + begin:8 + n + end], "<f4").reshape(h["shape"])
        out[name] = torch.from_numpy(x.copy())
    return out


def squash(s):
    square = (s * s).sum(-1, keepdim=True)
    return square / (1 + square) * s / torch.sqrt(square)


def route(votes):  # [B, I, J, D], Sabour et al. 2017, procedure 1
    logits = torch.zeros(votes.shape[:3])
    for r in range(ITERATIONS):
        couplings = torch.softmax(logits, dim=2)  # over the upper capsules
        v = squash((couplings[..., None] * votes).sum(1))
        if r + 1 < ITERATIONS:
            logits = logits + (votes * v[:, None]).sum(-1)
    return v


class ByComponent(nn.Module):
    """Primary capsules as a convolution for each component; matrices [J, I, E, D]."""

    class Primary(nn.Module):
        def __init__(self):
            super().__init__()
            self.capsules = nn.ModuleList(nn.Conv2d(4, TYPES, 3, 2) for _ in range(E))

        def forward(self, x):
            return squash(torch.stack([c(x).flatten(1) for c in self.capsules], dim=-1))

    class Digits(nn.Module):
        def __init__(self):
            super().__init__()
            self.route_weights = nn.Parameter(torch.randn(J, TYPES * 9, E, D))

        def forward(self, u):
            return route((u[None, :, :, None] @ self.route_weights[:, None]).squeeze(3)
                         .permute(1, 2, 0, 3))


class ByType(nn.Module):
    """Primary capsules as one convolution; matrices [1, I, J, D, E]."""

    class Primary(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, TYPES * E, 3, 2)

        def forward(self, x):
            z = self.conv(x)
            z = z.reshape(len(z), TYPES, E, *z.shape[2:]).permute(0, 1, 3, 4, 2)
            return squash(z.reshape(len(z), -1, E))

    class Digits(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.randn(1, TYPES * 9, J, D, E))

        def forward(self, u):
            return route((self.W @ u[:, :, None, :, None]).squeeze(-1))


class CapsNet(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.conv1 = nn.Conv2d(IMAGE[0], 4, 3)
        self.primary_capsules = parts.Primary()
        self.digit_capsules = parts.Digits()
        self.decoder = nn.Sequential(nn.Linear(J * D, 8), nn.ReLU(), nn.Linear(8, 12), nn.ReLU(),
                                     nn.Linear(12, int(np.prod(IMAGE))), nn.Sigmoid())

    def forward(self, x):
        v = self.digit_capsules(self.primary_capsules(torch.relu(self.conv1(x))))
        lengths = v.norm(dim=-1)
        mask = nn.functional.one_hot(lengths.argmax(1), J)
        return {"poses": v, "lengths": lengths,
                "reconstruction": self.decoder((v * mask[..., None]).flatten(1)).view(x.shape)}


KINDS = {"component": ByComponent, "type": ByType}


def make(folder, seed):
    torch.manual_seed(seed)
    for kind, parts in KINDS.items():
        net, x = CapsNet(parts), torch.rand(3, *IMAGE)
        with torch.no_grad():
            for p in net.primary_capsules.parameters():
                p *= 4  # capsules of some length, so that routing has something to do
            out = net(x)
        save(folder / f"{kind}.safetensors", net.state_dict())
        save(folder / f"{kind}.io.safetensors", {"x": x, **out})


def check(folder):
    worst = 0.0
    for kind, parts in KINDS.items():
        net, io = CapsNet(parts), load(folder / f"{kind}.io.safetensors")
        net.load_state_dict(load(folder / f"{kind}.back.safetensors"))  # strict: all names, shapes
        with torch.no_grad():
            out = net(io["x"])
        for name, y in out.items():
            error = (y - io[name]).abs().max().item()
            worst = max(worst, error)
            if not error < 1e-5:
                sys.exit(f"{kind}: {name} differs by {error}")
    print(f"PyTorch {torch.__version__}: our weights give its results; largest difference {worst}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        check(args.dir)
    else:
        make(args.dir, args.seed)


if __name__ == "__main__":
    main()
