"""Gradient penalties, ops one by one, and the start of a process, in PyTorch."""
import os
import subprocess
import sys

import torch
from torch import nn
from torch.nn import functional as F

from capsules import (CapsNet, forward_step, images, lengths, margin_loss, squash, training_step)


def penalty_formulations(keys):
    return ("autograd",) if keys.get("net", "mlp") == "mlp" else ("virtual", "mul", "bmm")


def penalty(keys, how):
    b, strength = keys.get("B", 128), 0.01
    x, labels, targets = images(b)
    if keys.get("net", "mlp") == "mlp":
        act = {"tanh": nn.Tanh, "softplus": nn.Softplus}[keys.get("act", "tanh")]
        net = nn.Sequential(nn.Linear(784, 512), act(), nn.Linear(512, 512), act(),
                            nn.Linear(512, 10))
        x = x.view(b, 784)
        f = lambda at: F.cross_entropy(net(at), labels)
    else:
        net = CapsNet(how)
        f = lambda at: margin_loss(lengths(net.poses(at)), targets)
    weights = list(net.parameters())

    def loss():
        if not keys.get("pen", 1):
            return f(x)
        if keys.get("wrt", "x") == "x":
            at = x.detach().requires_grad_()
            value = f(at)
            slope, = torch.autograd.grad(value * b, at, create_graph=True)
            return value + strength / b * (slope * slope).sum()
        value = f(x)
        slopes = torch.autograd.grad(value, weights, create_graph=True, allow_unused=True)
        return value + strength * sum((g * g).sum() for g in slopes if g is not None)
    return training_step(net, loss, lr=1e-3)


def chain(recorded):
    x = torch.randn(8, requires_grad=recorded)

    def step():
        y = x
        for _ in range(1000):
            y = y + x if recorded else x + x
        if recorded:
            torch.autograd.grad(y.sum(), x)
    return step


def convolution(op, keys, how):
    """Plain or channels-last memory, whichever oneDNN likes better."""
    c, stride, side = (1, 1, 28) if keys.get("layer", 2) == 1 else (256, 2, 20)
    order = torch.channels_last if how == "channels_last" else torch.contiguous_format
    x = torch.randn(keys.get("B", 128), c, side, side).to(memory_format=order)
    w = (torch.randn(256, c, 9, 9) * 0.01).to(memory_format=order)
    bias = torch.zeros(256)
    if op == "convfwd":
        return forward_step(lambda: F.conv2d(x, w, bias, stride))
    g = torch.randn_like(F.conv2d(x, w, bias, stride))
    wanted = {"convbwd": (True, True, True), "convbwd_x": (True, False, False),
              "convbwd_w": (False, True, True)}[op]
    back = torch.ops.aten.convolution_backward
    return forward_step(lambda: back(g, x, w, [256], [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1,
                                     wanted))


def product(keys):
    n = keys.get("n", 2048)
    a, b = torch.randn(keys.get("m", n), keys.get("k", n)), torch.randn(keys.get("k", n), n)
    return lambda: a @ b


def votes():
    u, w = torch.randn(1152, 128, 8), torch.randn(1152, 8, 160)
    return lambda: torch.bmm(u, w)


def adam(how):
    p = torch.randn(8215568, requires_grad=True)
    p.grad = torch.randn_like(p)
    return torch.optim.Adam([p], foreach=how == "foreach").step


def on(shape, f):
    def make():
        x = torch.randn(shape)
        return lambda: f(x)
    return make


def with_index(shape, index, bound, f):
    def make():
        x, i = torch.randn(shape), torch.randint(0, bound, index)
        return lambda: f(x, i)
    return make


def batch_norm():
    x, one, zero = torch.randn(128, 64, 20, 20), torch.ones(64), torch.zeros(64)
    mean, variance = torch.zeros(64), torch.ones(64)
    return lambda: F.batch_norm(x, mean, variance, one, zero, True)


def cholesky():
    x = torch.randn(4096, 16, 16)
    a = x @ x.transpose(1, 2) + 16 * torch.eye(16)
    return lambda: torch.linalg.cholesky(a)


def given_votes(weighted):
    u = torch.randn(128, 10, 1152, 16)
    c, v = torch.randn(128, 10, 1, 1152), torch.randn(128, 10, 16, 1)
    return (lambda: c @ u) if weighted else (lambda: u @ v)


LONG = (10000000,)
PLAIN = {
    "votes": votes, "batchnorm": batch_norm, "cholesky": cholesky,
    "weighted_sum": lambda: given_votes(True), "agreement": lambda: given_votes(False),
    "squash": on((128, 1152, 8), squash),
    "softmax_last": on((147456, 10), lambda x: torch.softmax(x, 1)),
    "softmax_mid": on((128, 10, 1152), lambda x: torch.softmax(x, 1)),
    "logsumexp": on((147456, 10), lambda x: torch.logsumexp(x, 1)),
    "exp": on(LONG, torch.exp), "log1p": on(LONG, lambda x: torch.log1p(x * x)),
    "sigmoid": on(LONG, torch.sigmoid), "tanh": on(LONG, torch.tanh), "relu": on(LONG, torch.relu),
    "add": on(LONG, lambda x: x + x), "add_row": on((65536, 160), lambda x: x + x[:1]),
    "sum": on(LONG, torch.sum),
    "sum_axis": on((128, 10, 1152, 16), lambda x: x.sum(2)),
    "sum_last16": on((128, 10, 1152, 16), lambda x: x.sum(3)),
    "max_axis": on((128, 10, 1152, 16), lambda x: x.amax(2)),
    "transpose": on((128, 256, 400), lambda x: x.transpose(1, 2).contiguous()),
    "cat": on((128, 1152, 16), lambda x: torch.cat((x, x), 2)),
    "sort": on((1024, 1152), lambda x: torch.sort(x, stable=True)),
    "maxpool": on((128, 64, 24, 24), lambda x: F.max_pool2d(x, 2)),
    "avgpool": on((128, 64, 24, 24), lambda x: F.avg_pool2d(x, 2)),
    "unfold": on((128, 32, 20, 20), lambda x: F.unfold(x, 3)),
    "layernorm": on((8192, 1024), lambda x: F.layer_norm(x, (1024,))),
    "bmm": on((512, 64, 64), lambda x: torch.bmm(x, x)),
    "einsum": on((512, 64, 64), lambda x: torch.einsum("bij,bkj->bik", x, x)),
    "gather": with_index((4096, 1024), (4096, 256), 1024, lambda x, i: torch.gather(x, 1, i)),
    "embedding": with_index((20000, 300), (8192,), 20000, lambda x, i: F.embedding(i, x)),
}


def primitive_formulations(keys):
    op = keys.get("op", "adam")
    if "scale" in keys:
        return ()
    if op.startswith("conv"):
        return ("contiguous", "channels_last")
    if op == "adam":
        return ("single", "foreach")
    return ("plain",)


def primitive(keys, how):
    op = keys.get("op", "adam")
    if op.startswith("conv"):
        return convolution(op, keys, how)
    if op == "adam":
        return adam(how)
    if op == "mm":
        return forward_step(product(keys))
    if op.startswith("dispatch"):
        return chain(op == "dispatch_grad")
    return forward_step(PLAIN[op]())


def startup_formulations(_):
    return ("process",)


def startup(_, __):
    """A process of its own, from its start to the first result."""
    code = ("import torch, capsules\n"
            "net = capsules.CapsNet('bmm').eval()\n"
            "with torch.inference_mode():\n"
            "    v = net.poses(torch.rand(1, 1, 28, 28))\n"
            "    net.decode(v, torch.nn.functional.one_hot(\n"
            "        capsules.lengths(v).argmax(1), 10).float())\n")
    folder = os.path.dirname(os.path.abspath(__file__))
    return lambda: subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
