"""What `accuracy.py` measures, and callbacks that a row needs"""
import time, torch, torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.learner import Metric
from fastai.losses import CrossEntropyLossFlat

EPS = 4/255 # of the adversarial step, in units of the pixel range

class MIoU(Metric):
    "Mean over classes of intersection over union, over all pixels that have a class"
    name = 'miou'
    def reset(self): self.n = 0
    def accumulate(self, learn):
        p,y = learn.pred.argmax(1),learn.y
        ok,c = y<learn.pred.shape[1],learn.pred.shape[1]
        self.n = self.n + torch.bincount(y[ok]*c + p[ok], minlength=c*c).view(c, c).double()
    @property
    def value(self):
        both = self.n.diag()
        union = self.n.sum(0)+self.n.sum(1)-both
        return (both/union)[union>0].mean().item()

class CpuTime(Callback):
    "Seconds of processor time, which other work on the machine changes less than those of the clock"
    total = 0 # of both fits of `fine_tune`
    def before_fit(self): self.start = time.process_time()
    def after_fit(self):
        self.total += time.process_time()-self.start
        self.learn.cpu_seconds = self.total

def ece(p, y, bins=15):
    "Expected calibration error: how far accuracy is from confidence, over `bins` of confidence"
    conf,pred = p.max(1)
    which = (conf*bins).ceil().long().clamp(1, bins)
    inside = [which==b for b in range(1, bins+1)]
    gaps = [((pred==y)[o].float().mean() - conf[o].mean()).abs()*o.sum() for o in inside if o.any()]
    return (sum(gaps)/len(y)).item()

def fgsm(model, x, y):
    "`x` after one step of `EPS` that makes the loss worse"
    x = x.clone().requires_grad_()
    g, = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return (x + EPS*g.sign()).detach().clamp(0, 1)

def predict(learn, *xs):
    learn.model.eval()
    with torch.no_grad(): return torch.cat([learn.model(*b).softmax(1) for b in zip(*(x.split(512) for x in xs))])

def calibration(learn):
    "Calibration on the validation set"
    *xs,y = learn.dls.valid.ts
    return dict(ece=ece(predict(learn, *xs), y), cpu_seconds=learn.cpu_seconds)

def attacked(learn):
    "And accuracy under FGSM, and the share of wrong training labels that were learned by heart"
    (x,y),(xt,yt) = learn.dls.valid.ts,learn.dls.train.ts
    bad = torch.cat([fgsm(learn.model.eval(), *b) for b in zip(x[:2000].split(500), y[:2000].split(500))])
    res = calibration(learn) | dict(fgsm_accuracy=(predict(learn, bad).argmax(1)==y[:2000]).float().mean().item())
    wrong = getattr(learn, 'wrong', None)
    if wrong is None or not wrong.any(): return res
    return res | dict(memorised=(predict(learn, xt).argmax(1)==yt)[wrong].float().mean().item())

def cpu_time(learn): return dict(cpu_seconds=learn.cpu_seconds)

def mape(learn):
    "Mean absolute error as a share of the target, in percent"
    x,y = learn.dls.valid.ts
    learn.model.eval()
    with torch.no_grad(): off = (learn.model(x)-y).abs()
    return dict(mape=100*(off/y.abs())[y!=0].mean().item(), cpu_seconds=learn.cpu_seconds)

class BalancedAccuracy(Metric):
    "Mean over classes of the share that is right"
    name = 'balanced_accuracy'
    def reset(self): self.n = 0
    def accumulate(self, learn):
        p,y,c = learn.pred.argmax(1),learn.y,learn.pred.shape[1]
        self.n = self.n + torch.stack([torch.bincount(y[o], minlength=c) for o in (p==y,p==p)]).double()
    @property
    def value(self): return (self.n[0]/self.n[1])[self.n[1]>0].mean().item()

def by_frequency(learn):
    "Accuracy on the three rarest and the three most frequent classes of training"
    (x,y),(_,yt) = learn.dls.valid.ts,learn.dls.train.ts
    right,order = predict(learn, x).argmax(1)==y,yt.bincount().argsort().tolist()
    return calibration(learn) | {f'{k}_accuracy': torch.stack([right[y==c].float().mean() for c in cs]).mean().item()
        for k,cs in (('rare',order[:3]),('frequent',order[-3:]))}

class ClassWeights(Callback):
    "Weigh classes by one over how many labels for training they have, from a part of training on, and never in validation"
    def __init__(self, start=0.): self.start = start
    def __repr__(self): return f'{type(self).__name__}(start={self.start})'
    def before_fit(self):
        n = self.dls.train.ts[-1].bincount()
        self.plain,self.weighted = self.learn.loss_func,CrossEntropyLossFlat(weight=n.sum()/(len(n)*n))
    def before_train(self):
        if self.pct_train>=self.start: self.learn.loss_func = self.weighted
    def before_validate(self): self.learn.loss_func = self.plain
    def after_cancel_fit(self): self.learn.loss_func = self.plain

class Ece(Metric):
    "`ece` over all of the validation set"
    name = 'ece'
    def reset(self): self.seen = []
    def accumulate(self, learn): self.seen.append((learn.pred.softmax(1),learn.y))
    @property
    def value(self): return ece(*map(torch.cat, zip(*self.seen)))

class LastInFull(Callback):
    "Validate on a few samples alone before the last epoch, and while the body is frozen, for time"
    def __init__(self, few): self.few = few
    def before_validate(self):
        if self.epoch<self.n_epoch-1 or getattr(self.opt, 'frozen_idx', 0)>0: self.learn.dl = self.few
