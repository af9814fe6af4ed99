"A default dtype or a default device that the user set changes no result"
import warnings, pytest, torch
from torch import nn
import fastmix.all as fm
from helpers import MIXERS

MAKE = {k:make for k,(make,kind) in MIXERS.items()} | {'MixUp with p':lambda **kw: fm.MixUp(p=.5, **kw), 'pair':lambda **kw: fm.MixUp(pair=lambda yb,g: [1,2,3,0], **kw),
    'MixChoice with None':lambda **kw: fm.MixChoice(fm.MixUp(**kw), None, per_sample=True), 'lists':lambda **kw: fm.CutMix(minmax=(.25,.5), **kw),
    'pair as Tensor':lambda **kw: fm.MixUp(pair=lambda yb,g: torch.tensor([1,2,3,0], device='cpu'), **kw)}

class Tokens(nn.Module):
    "Dropout and random numbers of its own, which the trial holds still, and a padding mask"
    def __init__(self):
        super().__init__()
        self.emb,self.drop,self.head = nn.Embedding(20,8, padding_idx=0),nn.Dropout(.1),nn.Linear(8,3)
    def forward(self, x): return self.head(self.drop(self.emb(x)*(x>0)[...,None]).mean(1))

def image_net(): return nn.Sequential(nn.Conv2d(2,4,3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144,8), nn.ReLU(), nn.Linear(8,3))

def batches(name, around):
    "Three mixed batches and their losses; the mixer works within `around`"
    torch.manual_seed(1)
    tokens = 'tokens' in name
    x,y,model = torch.randint(1, 20, (4,6)) if tokens else torch.randn(4,2,6,6),torch.arange(4)%3,(Tokens if tokens else image_net)()
    x[...,-1:] = x[...,-1:] if not tokens else 0
    res = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with around(), fm.PlainLoop(MAKE[name](), model, nn.CrossEntropyLoss()) as loop:
            for _ in range(3):
                torch.manual_seed(2+len(res))
                b = loop(x, y)
                res.append((b.loss(b.predict()).detach(), b.lam, b.perm, b.boxes, *b.xb))
    return res

class Default:
    "A default dtype or device for a while"
    def __init__(self, o): self.o = o
    def __enter__(self):
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.o) if isinstance(self.o, torch.dtype) else torch.set_default_device(self.o)
    def __exit__(self, *args):
        torch.set_default_device(None)
        torch.set_default_dtype(self.before)

def plain(): return Default(torch.float32)

@pytest.mark.parametrize('name', MAKE)
@pytest.mark.parametrize('default', (torch.float64,torch.bfloat16,torch.float16,'meta'))
def test_batches_are_the_same(name, default):
    for got,want in zip(batches(name, lambda: Default(default)), batches(name, plain)):
        for a,b in zip(got,want):
            if b is None: assert a is None
            else: assert a.dtype==b.dtype and a.device==b.device and torch.equal(a, b)

X,P,Y = torch.randn(4,3),torch.randn(4,5),torch.arange(4)
CALLS = dict(lam=lambda: fm.mixup_batch(X, lam=.3, perm=[1,2,3,0])[2], lams=lambda: fm.mixup_batch(X, lam=[.1,.2,.3,.7], perm=[1,2,3,0])[0],
    cutmix=lambda: fm.cutmix_batch(X[:,None], lam=.3)[2], loss=lambda: fm.MixUpLoss(nn.CrossEntropyLoss())(P, Y, yb1=Y.roll(1), lam=.3),
    own_loss=lambda: fm.MixUpLoss(lambda p,y: nn.functional.cross_entropy(p, y))(P, Y, yb1=Y.roll(1), lam=.3),
    targets=lambda: fm.mix_targets(Y, Y.roll(1), .3, 5), floats=lambda: fm.mix_targets(P, P.roll(1, 0), [.1,.2,.3,.4]), draw=lambda: fm.draw_lam(9, .4),
    boxes=lambda: fm.box_lam(fm.draw_boxes((7,9), fm.draw_lam(5, 1.)), (7,9)), within=lambda: fm.perm_within([0,0,1,1]), perm=lambda: fm.draw_perm(7))

@pytest.mark.parametrize('name', CALLS)
@pytest.mark.parametrize('default', (torch.float64,torch.bfloat16,torch.float16,'meta'))
def test_functions_return_the_same(name, default):
    torch.manual_seed(0)
    want = CALLS[name]()
    torch.manual_seed(0)
    with Default(default): got = CALLS[name]()
    assert got.dtype==want.dtype and got.device==want.device and torch.equal(got, want)
