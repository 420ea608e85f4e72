"""Efficient-CapsNet (Mazzia et al. 2021) and capsules for text (Zhao et al. 2018) in PyTorch."""
import torch
from torch import nn
from torch.nn import functional as F

from capsules import forward_step, images, lengths, margin_loss, training_step


def squash_exp(s):
    n = s.norm(dim=-1, keepdim=True)
    return s * ((1 - torch.exp(-n)) / (n + 1e-20))


class EfficientNet(nn.Module):
    def __init__(self):
        super().__init__()
        stages = []
        for cin, cout, kernel, stride in ((1, 32, 5, 1), (32, 64, 3, 1), (64, 64, 3, 1),
                                          (64, 128, 3, 2)):
            stages += [nn.Conv2d(cin, cout, kernel, stride), nn.ReLU(),
                       nn.BatchNorm2d(cout, eps=1e-3, momentum=0.01)]
        self.features = nn.Sequential(*stages)
        self.depthwise = nn.Conv2d(128, 128, 9, groups=128)
        self.weight = nn.Parameter(0.1 * torch.randn(16, 8, 160))
        self.log_prior = nn.Parameter(torch.zeros(10, 16))
        self.decoder = nn.Sequential(nn.Linear(160, 512), nn.ReLU(inplace=True),
                                     nn.Linear(512, 1024), nn.ReLU(inplace=True),
                                     nn.Linear(1024, 784), nn.Sigmoid())

    def forward(self, x, targets):
        b = x.shape[0]
        u = squash_exp(self.depthwise(self.features(x)).reshape(b, 16, 8))
        votes = torch.bmm(u.transpose(0, 1), self.weight).view(16, b, 10, 16).permute(1, 2, 0, 3)
        attention = (votes @ votes.sum(2)[..., None])[..., 0] * 0.25  # [B, J, I]
        c = torch.softmax(attention, 1) + self.log_prior
        v = squash_exp((c[..., None] * votes).sum(2))
        return lengths(v), self.decoder((v * targets[..., None]).reshape(b, 160))


def efficient_formulations(_):
    return ("channels_last", "contiguous")


def efficient(keys, how):
    b = keys.get("B", 16)
    net = EfficientNet()
    x, _, targets = images(b)
    flat = x.view(b, 784)
    if how == "channels_last":
        net = net.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    if keys.get("mode", "train") == "infer":
        net.eval()
        return forward_step(lambda: net(x, targets))

    def loss():
        length, image = net(x, targets)
        return margin_loss(length, targets) + 0.392 * F.mse_loss(image, flat)
    return training_step(net, loss, lr=5e-4)


def squash_half(s):
    q = (s * s).sum(-1, keepdim=True) + 1e-7
    return s * (torch.sqrt(q) / (0.5 + q))


def route_mul(votes, r):
    """votes [N, I, J, D] by broadcasting; the children come as they lie."""
    logits = None
    for left in reversed(range(r)):
        if logits is None:
            s = votes.sum(1) / votes.shape[2]
        else:
            s = (torch.softmax(logits, 2)[..., None] * votes).sum(1)
        v = squash_half(s)
        if left:
            more = (votes * v[:, None]).sum(-1)
            logits = more if logits is None else logits + more
    return v


def route_bmm(votes, r):
    """The same by matrix products over [N, J, I, D]."""
    votes = votes.transpose(1, 2).contiguous()
    logits = None
    for left in reversed(range(r)):
        if logits is None:
            s = votes.sum(2) / votes.shape[1]
        else:
            s = (torch.softmax(logits, 1)[:, :, None] @ votes)[:, :, 0]
        v = squash_half(s)
        if left:
            more = (votes @ v[..., None])[..., 0]
            logits = more if logits is None else logits + more
    return v


class Branch(nn.Module):
    def __init__(self, n, classes, route):
        super().__init__()
        self.route, self.classes = route, classes
        self.grams = nn.Conv1d(300, 32, n, stride=2)
        self.primary = nn.Linear(32, 256)
        self.window = nn.Parameter(0.1 * torch.randn(16, 256))
        self.dense = nn.Parameter(0.1 * torch.randn(16, classes * 16))

    def forward(self, words):
        b = words.shape[0]
        at = self.primary(F.relu(self.grams(words)).transpose(1, 2))
        u = squash_half(at.view(b, -1, 16, 16))
        # The window shares its transformation: once per position, then the windows.
        votes = (u @ self.window).view(b, -1, 16, 16, 16).unfold(1, 3, 1)
        n = votes.shape[1]
        votes = votes.permute(0, 1, 5, 2, 3, 4).reshape(b * n, 48, 16, 16)
        v = self.route(votes, 3).view(b, n * 16, 16)
        return self.route((v @ self.dense).view(b, n * 16, self.classes, 16), 3)


def text_formulations(_):
    return ("mul", "bmm")


def text(keys, how):
    b, length, classes = keys.get("B", 25), keys.get("L", 50), keys.get("classes", 9)
    route = route_mul if how == "mul" else route_bmm
    sizes = (3,) if keys.get("model", "A") == "A" else (3, 4, 5)
    branches = nn.ModuleList([Branch(n, classes, route) for n in sizes])
    table = torch.randn(20000, 300)  # not trained
    ids = torch.randint(0, 20000, (b, length))
    targets = F.one_hot(torch.randint(0, classes, (b,)), classes).float()

    def run():
        words = F.embedding(ids, table).transpose(1, 2)
        return lengths(sum(branch(words) for branch in branches) / len(sizes))
    if keys.get("mode", "train") == "infer":
        return forward_step(run)
    return training_step(branches, lambda: margin_loss(run(), targets, 0.25), lr=1e-3)
