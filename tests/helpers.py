"What several test files need: small data, small models, all mixers, and a callback that recomputes each batch"
import torch, torch.nn.functional as F
from contextlib import ExitStack
from functools import partial
from torch import nn
from fastai.basics import Callback, DataLoaders, Learner
from fastai.callback.progress import ProgressCallback
import fastmix.all as fm

n_train,n_valid,bs,n_out = 8,4,4,3
gen = torch.Generator().manual_seed(42)
DATA = dict(image=torch.randn(n_train+n_valid, 2, 6, 6, generator=gen), tokens=torch.randint(1, 20, (n_train+n_valid, 5), generator=gen))
Y = torch.arange(n_train+n_valid)%n_out

class Mean(nn.Module):
    def forward(self, x): return x.mean(1)

def net(kind='image'):
    "A network without randomness or running statistics, the same each time"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if kind=='tokens': return nn.Sequential(nn.Embedding(20,8), Mean(), nn.Linear(8,8), nn.ReLU(), nn.Linear(8,n_out))
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        return nn.Sequential(conv(2,4), nn.ReLU(), conv(4,4), nn.ReLU(), nn.Flatten(), nn.Linear(4*36,n_out))

def choice(**kw_choice): return lambda **kw: fm.MixChoice(fm.MixUp(**kw), fm.CutMix(**kw), **kw_choice)

MIXERS = { # name: what makes one, and the kind of data it is tried on
    'MixUp':(fm.MixUp,'image'), 'MixUp of tokens':(fm.MixUp,'tokens'), 'CutMix':(fm.CutMix,'image'), 'FMix':(fm.FMix,'image'),
    'ResizeMix':(fm.ResizeMix,'image'), 'ManifoldMixUp':(fm.ManifoldMixUp,'image'), 'ManifoldMixUp of tokens':(fm.ManifoldMixUp,'tokens'),
    'OutputMixUp':(fm.OutputMixUp,'image'), 'MixChoice':(choice(),'image'), 'MixChoice per sample':(choice(per_sample=True),'image'),
    'MixChoice of tokens':(lambda **kw: fm.MixChoice(fm.MixUp(**kw), fm.ManifoldMixUp(**kw)),'tokens')}
def kind_of(name): return MIXERS[name][1]
def mixer(name, **kw): return MIXERS[name][0](**kw)

def get_dls(x, y, n=n_train, bs=bs, shuffle=False, **kw):
    dsets = [[*zip(x[:n],y[:n])],[*zip(x[n:],y[n:])]]
    return DataLoaders.from_dsets(*dsets, bs=bs, device='cpu', num_workers=0, shuffle=(shuffle,False), **kw)

def get_learn(cbs=None, kind='image', model=None, loss_func=None, x=None, y=None, dls=None, lr=1e-2, **kw):
    if dls is None: dls = get_dls(DATA[kind] if x is None else x, Y if y is None else y)
    return Learner(dls, model or net(kind), loss_func=loss_func or nn.CrossEntropyLoss(), cbs=cbs, lr=lr, **kw)

def quiet(learn):
    "Keep `learn` from printing"
    stack = ExitStack()
    for o in (learn.removed_cbs(learn._grab_cbs(ProgressCallback)),learn.no_logging(),learn.no_mbar()): stack.enter_context(o)
    return stack

def fit(learn, n=1, seed=0, **kw):
    "Train `n` epochs from PyTorch's seed `seed`"
    if seed is not None: torch.manual_seed(seed)
    with quiet(learn): learn.fit(n, **kw)
    return learn

def weights(learn):
    "All that a model holds, in one tensor"
    return torch.cat([o.detach().float().flatten() for o in getattr(learn, 'model', learn).state_dict().values()])

def hooks(model):
    "All hooks of all kinds in a model"
    return [h for m in model.modules() for k,v in vars(m).items() if 'hooks' in k and isinstance(v, dict) for h in v.values()]

class Check(Callback):
    "Recompute each training batch's inputs and loss from the plain batch, sample by sample, as the definition has them"
    order,run_valid,tol = -5,False,1e-5
    def __init__(self, name='MixUp', loss=None): # `loss(pred, y)` of one sample
        self.mix_name,self.loss1,self.seen,self.plain = name,loss or F.cross_entropy,0,0

    def before_fit(self): self.m = self.learn.mixer
    @property
    def mixed(self): return self.m.lam is not None
    def before_batch(self): self.x0,self.y0 = self.x.clone(),self.y.clone()

    def expected(self):
        "The input; None where it is another's business"
        if not self.mixed: return self.x0
        lam,perm,x = self.m.lam.expand(len(self.x0)),self.m.perm,self.x0
        if self.mix_name=='MixUp': return torch.stack([l*a + (1-l)*x[j] for l,j,a in zip(lam, perm, x)])
        if self.mix_name!='CutMix': return
        res = x.clone()
        for o,j,box in zip(res, perm, self.m.boxes.expand(len(x), -1, -1).tolist()):
            inside = (..., *[slice(*b) for b in box])
            o[inside] = x[j][inside]
        return res

    def after_pred(self):
        x = self.expected()
        if x is not None: torch.testing.assert_close(self.x, x, atol=1e-6, rtol=1e-5, check_dtype=False)
        elif kind_of(self.mix_name)=='tokens': assert torch.equal(self.x, self.x0)

    def after_loss(self):
        assert torch.equal(self.y, self.y0)
        n = len(self.y0)
        lam,y1 = (self.m.lam.expand(n),self.y0[self.m.perm]) if self.mixed else (1,self.y0)
        own,other = (torch.stack([self.loss1(self.pred[i], y[i]) for i in range(n)]) for y in (self.y0,y1))
        torch.testing.assert_close(self.learn.loss, (lam*own + (1-lam)*other).mean(), atol=self.tol, rtol=self.tol, check_dtype=False)
        self.seen += 1
        self.plain += not self.mixed
