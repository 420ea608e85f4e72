"""Vector capsules in PyTorch: routing by agreement in several formulations, and CapsNet.

Which one is fastest depends on shape and machine, so the bench tries them all:
  bmm      votes [B, J, I, D]; weighted sums and agreements are batched matrix products
  mul      the same votes; products and sums by broadcasting
  first    votes [I, B, J, D], as the product that makes them writes them; broadcasting
  virtual  no votes at all: s_j = (c_j * u) W_j and agreement <u_i, W_ij v_j>
"""
import torch
from torch import nn
from torch.nn import functional as F


def squash(s):
    q = (s * s).sum(-1, keepdim=True)
    return s * (torch.sqrt(q + 1e-9) / (1 + q))


def route(weighted, agree, upper_axis, iterations):
    """weighted(c) -> sums (c None: uniform), agree(v) -> what is added to the logits."""
    logits = None
    for left in reversed(range(iterations)):
        v = squash(weighted(None if logits is None else torch.softmax(logits, upper_axis)))
        if left:
            more = agree(v)
            logits = more if logits is None else logits + more
    return v


def route_bmm(votes, r):
    j = votes.shape[1]
    return route(lambda c: votes.sum(2) / j if c is None else (c[:, :, None, :] @ votes)[:, :, 0],
                 lambda v: (votes @ v[..., None])[..., 0], 1, r)


def route_mul(votes, r):
    j = votes.shape[1]
    return route(lambda c: votes.sum(2) / j if c is None else (c[..., None] * votes).sum(2),
                 lambda v: (votes * v[:, :, None]).sum(-1), 1, r)


def route_first(votes, r):
    j = votes.shape[2]
    return route(lambda c: votes.sum(0) / j if c is None else (c[..., None] * votes).sum(0),
                 lambda v: (votes * v).sum(-1), 2, r)


def route_virtual(u, weight, r):
    """u [B, I, K], weight [J, I, K, D]."""
    j, i, k, d = weight.shape
    b = u.shape[0]
    flat = weight.reshape(j, i * k, d)

    def weighted(c):
        if c is None:
            return u.reshape(b, i * k) @ flat / j  # [J, B, D]
        return torch.bmm((c[..., None] * u).reshape(j, b, i * k), flat)

    def agree(v):
        return (torch.bmm(v, flat.transpose(1, 2)).view(j, b, i, k) * u).sum(-1)

    return route(weighted, agree, 0, r).transpose(0, 1)


def vote_weight(how, i, j, k, d, std):
    """In the order that the formulation reads."""
    return std * (torch.randn(j, i, k, d) if how == "virtual" else torch.randn(i, k, j * d))


def votes_and_route(how, u, weight, j, d, r):
    """u [B, I, K] -> [B, J, D]."""
    if how == "virtual":
        return route_virtual(u, weight, r)
    b, i, _ = u.shape
    votes = torch.bmm(u.transpose(0, 1), weight).view(i, b, j, d)
    if how == "first":
        return route_first(votes, r).contiguous()
    votes = votes.permute(1, 2, 0, 3)
    return route_bmm(votes.contiguous(), r) if how == "bmm" else route_mul(votes, r)


def routing_formulations(keys):
    return ("bmm", "virtual", "mul", "first") if keys.get("K", 0) else ("bmm", "mul", "first")


def routing(keys, how):
    b, i, j, d = (keys.get(k, n) for k, n in (("B", 128), ("I", 1152), ("J", 10), ("D", 16)))
    k, r = keys.get("K", 0), keys.get("r", 3)
    gradient = keys.get("mode", "fwdbwd") == "fwdbwd"
    g = torch.randn(b, j, d)
    if k:
        u = torch.randn(b, i, k) * 0.3
        inputs = [u, vote_weight(how, i, j, k, d, 0.1)]
        run = lambda: votes_and_route(how, u, inputs[1], j, d, r)
    else:
        shape = (i, b, j, d) if how == "first" else (b, j, i, d)
        inputs = [torch.randn(shape) * 0.05]
        run = lambda: {"bmm": route_bmm, "mul": route_mul, "first": route_first}[how](inputs[0], r)
    return forward_step(run) if not gradient else gradient_step(run, inputs, [g])


def forward_step(run):
    def step():
        with torch.inference_mode():
            run()
    return step


def gradient_step(run, inputs, cotangents):
    for x in inputs:
        x.requires_grad_()

    def step():
        y = run()
        torch.autograd.grad(y if isinstance(y, (tuple, list)) else (y,), inputs, cotangents)
    return step


def training_step(net, loss, **adam):
    weights = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, **adam)

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward(inputs=weights)  # not the images of an input penalty
        value.item()
        optimizer.step()
    return step


class CapsNet(nn.Module):
    """8,215,568 parameters with the decoder."""

    def __init__(self, how, r=3):
        super().__init__()
        self.how, self.r = how, r
        self.conv = nn.Conv2d(1, 256, 9)
        self.primary = nn.Conv2d(256, 256, 9, stride=2)
        self.weight = nn.Parameter(vote_weight(how, 1152, 10, 8, 16, 0.01))
        self.decoder = nn.Sequential(nn.Linear(160, 512), nn.ReLU(inplace=True),
                                     nn.Linear(512, 1024), nn.ReLU(inplace=True),
                                     nn.Linear(1024, 784), nn.Sigmoid())

    def poses(self, x):
        maps = self.primary(F.relu(self.conv(x), inplace=True))
        u = maps.view(-1, 32, 8, 36).transpose(2, 3).reshape(-1, 1152, 8)
        return votes_and_route(self.how, squash(u), self.weight, 10, 16, self.r)

    def decode(self, v, targets):
        return self.decoder((v * targets[..., None]).reshape(-1, 160))


def lengths(v):
    return torch.sqrt((v * v).sum(-1) + 1e-9)


def margin_loss(length, targets, absent=0.5):
    present = targets * torch.relu(0.9 - length) ** 2
    return (present + absent * (1 - targets) * torch.relu(length - 0.1) ** 2).sum(1).mean()


def images(b):
    labels = torch.randint(0, 10, (b,))
    return torch.rand(b, 1, 28, 28), labels, F.one_hot(labels, 10).float()


def capsnet_formulations(keys):
    if set(keys) - {"mode", "B", "r"}:
        return ()
    return ("bmm", "virtual", "mul")


def capsnet(keys, how):
    b = keys.get("B", 128)
    net = CapsNet(how, keys.get("r", 3))
    x, _, targets = images(b)
    if keys.get("mode", "train") == "infer":
        net.eval()

        def run():
            v = net.poses(x)
            net.decode(v, F.one_hot(lengths(v).argmax(1), 10).float())
        return forward_step(run)

    def loss():
        v = net.poses(x)
        wrong = net.decode(v, targets) - x.view(b, 784)
        return margin_loss(lengths(v), targets) + 0.0005 * (wrong * wrong).sum() / b
    return training_step(net, loss, lr=1e-3)
