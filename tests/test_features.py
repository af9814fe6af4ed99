"What else people mix, each against a slow oracle that knows only the plain batch and what was drawn for it"
import warnings, pytest, torch, torch.nn.functional as F
from torch import nn
from fastai.basics import Callback, DataLoaders, Learner
from fastai.callback.training import GradientAccumulation
import fastmix.all as fm
from helpers import fit

def loaders(x, y, bs=8):
    "The same batches for training and validation; `x` and `y` are Tensors or tuples of them"
    xs,ys = (o if isinstance(o, tuple) else (o,) for o in (x,y))
    dls = DataLoaders.from_dsets(*[list(zip(*xs, *ys))]*2, bs=bs, device='cpu', num_workers=0, shuffle=(False,False))
    dls.n_inp = len(xs)
    return dls

class Watch(Callback):
    "Keep each training batch: plain inputs and targets, what the model was given, and what was drawn"
    order,run_valid = -5,False
    def __init__(self): self.seen = []
    def before_batch(self): self.plain = self.xb,self.yb
    def after_pred(self): self.given = self.xb,self.yb
    def after_loss(self):
        m = self.learn.mixer
        boxes = None if m.boxes is None else m.boxes.expand(len(m.perm), -1, -1).tolist()
        lam = m.lam.expand(len(m.perm)) if m.lam is not None else None
        self.seen.append((*self.plain, *self.given, self.learn.pred, m.perm, lam, boxes))

def watched(x, y, mixer, model, loss_func, *cbs, n=1, said=None, **kw):
    "All training batches of a fit; `said` gathers its warnings"
    learn,w = Learner(loaders(x, y), model, loss_func=loss_func, cbs=[mixer,*cbs], **kw),Watch()
    learn.recorder.train_metrics = True
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        fit(learn, n, lr=1e-2, cbs=w)
    if said is not None: said += [str(o.message) for o in warned]
    return learn,w.seen

# Accuracy

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a,self.b = nn.Linear(6,3),nn.Linear(6,8)
    def forward(self, x): return dict(a=self.a(x), b=self.b(x).view(-1,2,4)) # classes of `b` in dimension 1

def heads_loss(pred, y): return F.cross_entropy(pred['a'], y['a']) + F.cross_entropy(pred['b'], y['b'], ignore_index=-1)

@pytest.mark.parametrize('accumulate', (False,True))
@pytest.mark.parametrize('mixer', (fm.MixUp(4.),fm.MixUp(4., p=.5),fm.MixChoice(fm.MixUp(1.), None)))
def test_accuracy_of_heads_counts_each_share(mixer, accumulate):
    x = torch.randn(64, 6)
    y = [dict(a=a, b=b) for a,b in zip(torch.randint(0,3,(64,)), torch.randint(-1,2,(64,4)))]
    dls = DataLoaders.from_dsets(*[list(zip(x,y))]*2, bs=8, device='cpu', num_workers=0, shuffle=(False,False))
    metrics = [fm.MixAccuracy(target='a'),fm.MixAccuracy(axis=1, target='b', ignore_index=-1)]
    learn,w = Learner(dls, Heads(), loss_func=heads_loss, cbs=[mixer] + [GradientAccumulation(24)]*accumulate, metrics=metrics),Watch()
    learn.recorder.train_metrics = True
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(learn, 1, lr=1e-2, cbs=w)
    right,count = dict(a=0.,b=0.),dict(a=0.,b=0.)
    for _,(y,),_,_,pred,perm,lam,_ in w.seen:
        for i in range(8):
            share = 1. if lam is None else lam[i].item()
            parts = [(i,share)] + ([] if lam is None else [(perm[i].item(),1-share)])
            for j,s in parts:
                right['a'] += s*(pred['a'][i].argmax()==y['a'][j]).item()
                count['a'] += s
                for t in range(4):
                    if y['b'][j,t]==-1: continue
                    right['b'] += s*(pred['b'][i,:,t].argmax()==y['b'][j,t]).item()
                    count['b'] += s
    names,got = learn.recorder.metric_names[1:],learn.recorder.values[-1]
    for k in 'ab': assert got[names.index(f'train_mix_accuracy_{k}')]==pytest.approx(right[k]/count[k], abs=1e-4)

@pytest.mark.parametrize('y,n_out,word', ((torch.randn(16,1),1,'counts classes'), (torch.rand(16,3),3,'counts classes'),
    (torch.randint(0,2,(16,3)),3,'accuracy_multi'), (torch.rand(16,3)>.5,3,'accuracy_multi'), (torch.randint(0,2,(16,)),1,'single score')))
def test_accuracy_of_what_has_no_classes_is_refused(y, n_out, word):
    with pytest.raises((TypeError,ValueError), match=word):
        watched(torch.randn(16,4), y, fm.MixUp(per_sample=False), nn.Linear(4,n_out), lambda p,t: p.sum(), metrics=fm.MixAccuracy())

def test_accuracy_of_the_second_of_two_targets():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a,self.b = nn.Linear(4,1),nn.Linear(4,3)
        def forward(self, x): return self.a(x),self.b(x)
    value,group = torch.randn(16,1),torch.randint(0,3,(16,))
    learn,seen = watched(torch.randn(16,4), (value,group), fm.MixUp(4., per_sample=False), Two(),
        lambda p,v,c: F.mse_loss(p[0], v) + F.cross_entropy(p[1], c), metrics=fm.MixAccuracy(target=1))
    hits = [l*(p.argmax()==c).item() + (1-l)*(p.argmax()==y[1][j]).item() for _,y,_,_,pred,perm,lam,_ in seen
        for l,p,c,j in zip(lam.tolist(), pred[1], y[1], perm)]
    assert learn.recorder.values[-1][1]==pytest.approx(sum(hits)/len(hits), abs=1e-5)
    with pytest.raises(TypeError, match='counts classes'):
        watched(torch.randn(16,4), (value,group), fm.MixUp(per_sample=False), Two(), lambda p,v,c: p[0].sum(), metrics=fm.MixAccuracy())
