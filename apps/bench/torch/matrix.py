"""Matrix capsules with EM routing in PyTorch, for speed: votes stay in the order [I, N, C, 16] in
which one batched product writes them, I children, N positions of all images, C parents. The 4 x 4
pose product is written as a row of 16 times a 16 x 16C matrix with zeros: four times the arithmetic,
no transposition."""
import math

import torch
from torch import nn
from torch.nn import functional as F

from capsules import forward_step, gradient_step, images, training_step

EPS = 1e-8


def em_routing(votes, activation, beta_u, beta_a, r, children, lam=1e-3):
    """Procedure 1 of Hinton, Sabour, Frosst 2018. `children`: the axis of I, 0 or 1; the parents
    come before the last axis. Returns means and activations."""
    parents, d = votes.shape[2:]
    assigned = 1.0 / parents
    for left in reversed(range(r)):
        weight = assigned * activation[..., None].expand(votes.shape[:3])
        total = weight.sum(children, keepdim=True)
        share = (weight / (total + EPS))[..., None]
        mean = (share * votes).sum(children, keepdim=True)
        apart = (votes - mean) ** 2
        variance = (share * apart).sum(children, keepdim=True) + EPS
        log_sigma = 0.5 * torch.log(variance)
        total = total.squeeze(children)
        cost = (beta_u[:, None] + log_sigma.squeeze(children)).sum(-1) * total
        out = torch.sigmoid(lam * (beta_a - cost))
        if left:
            near = (apart * (-0.5 / variance)).sum(-1)
            prior = torch.log(out) - log_sigma.squeeze(children).sum(-1) - d * _HALF_LOG_2PI
            assigned = torch.softmax(near + prior.unsqueeze(children), 2)
    return mean.squeeze(children), out


_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Routed(nn.Module):
    """Weights and betas of `parents` capsules over `rows` children."""

    def __init__(self, rows, parents):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, 4, parents, 4) * 0.5)
        self.beta_u = nn.Parameter(torch.zeros(parents))
        self.beta_a = nn.Parameter(torch.zeros(parents))

    def votes(self, pose):
        """pose [I, N, 16] -> [I, N, C, 16]."""
        i, _, c, _ = self.weight.shape
        eye = torch.eye(4)
        rows = torch.einsum("rs,ikcl->irkcsl", eye, self.weight).reshape(i, 16, c * 16)
        return torch.bmm(pose, rows).view(i, pose.shape[1], c, 16)


class ConvCapsules(Routed):
    def __init__(self, types, parents, stride):
        super().__init__(9 * types, parents)
        self.stride = stride

    def forward(self, pose, activation, r):
        """pose [b, h, w, types, 16], activation [b, h, w, types]."""
        p = pose.unfold(1, 3, self.stride).unfold(2, 3, self.stride)  # [b, h, w, types, 16, 3, 3]
        a = activation.unfold(1, 3, self.stride).unfold(2, 3, self.stride)
        b, h, w, types = a.shape[:4]
        p = p.permute(5, 6, 3, 0, 1, 2, 4).reshape(9 * types, b * h * w, 16)
        a = a.permute(4, 5, 3, 0, 1, 2).reshape(9 * types, b * h * w)
        mean, out = em_routing(self.votes(p), a, self.beta_u, self.beta_a, r, 0)
        return mean.view(b, h, w, -1, 16), out.view(b, h, w, -1)


class ClassCapsules(Routed):
    def forward(self, pose, activation, r):
        b, h, w, types, _ = pose.shape
        votes = self.votes(pose.permute(3, 0, 1, 2, 4).reshape(types, b * h * w, 16))
        place = torch.zeros(h, w, 16)
        place[..., 0] = (torch.arange(h) / h)[:, None]
        place[..., 1] = torch.arange(w) / w
        votes = votes.view(types, b, h, w, -1, 16) + place[:, :, None]
        votes = votes.permute(0, 2, 3, 1, 4, 5).reshape(types * h * w, b, -1, 16)
        a = activation.permute(3, 1, 2, 0).reshape(-1, b)
        return em_routing(votes, a, self.beta_u, self.beta_a, r, 0)[1]


class MatrixNet(nn.Module):
    """A = 64, B = 8, C = D = 16, ten classes."""

    def __init__(self, r):
        super().__init__()
        self.r = r
        self.conv = nn.Conv2d(1, 64, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(64, eps=1e-3)
        self.primary = nn.Conv2d(64, 8 * 17, 1)
        self.first = ConvCapsules(8, 16, 2)
        self.second = ConvCapsules(16, 16, 1)
        self.classes = ClassCapsules(16, 10)

    def forward(self, x):
        maps = self.primary(F.relu(self.norm(self.conv(x)), inplace=True)).permute(0, 2, 3, 1)
        pose = maps[..., :128].reshape(*maps.shape[:3], 8, 16)
        state = pose, torch.sigmoid(maps[..., 128:])
        for layer in (self.first, self.second):
            state = layer(*state, self.r)
        return self.classes(*state, self.r)


def net_formulations(keys):
    return () if keys.get("net", "padded") != "padded" else ("first",)


def net(keys, _):
    b = keys.get("B", 64)
    model = MatrixNet(keys.get("r", 2))
    x, labels, _ = images(b)
    if keys.get("mode", "train") == "infer":
        model.eval()
        return forward_step(lambda: model(x))
    margin = 0.27

    def loss():
        out = model(x)
        short = torch.relu(margin - (out.gather(1, labels[:, None]) - out)) ** 2
        return short.sum() / b - margin ** 2  # the term of the label itself
    return training_step(model, loss, lr=3e-3, weight_decay=2e-7)


def routing_formulations(_):
    return ("first", "second")


def routing(keys, how):
    """Children on the first or on the second axis of the votes."""
    b, i, j, d = (keys.get(k, n) for k, n in (("B", 64), ("I", 288), ("J", 32), ("D", 16)))
    axis = 0 if how == "first" else 1
    lead = (i, b) if axis == 0 else (b, i)
    votes, activation = torch.randn(*lead, j, d), torch.rand(*lead)
    betas = [torch.zeros(j), torch.zeros(j)]
    run = lambda: em_routing(votes, activation, *betas, keys.get("r", 3), axis)
    if keys.get("mode", "fwdbwd") == "fwd":
        return forward_step(run)
    return gradient_step(run, [votes] + betas, [torch.randn(b, j, d), torch.randn(b, j)])
