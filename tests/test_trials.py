"Models, batches and callbacks that are not in every batch what they are in the first: what is predicted is the mixture, or the fit is refused"
import copy, io, itertools, numpy as np, pytest, random, torch, torch.nn.functional as F, warnings
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from torch import nn
from torch.utils.checkpoint import checkpoint
from fastai.basics import Callback
import fastmix.all as fm
from oracle import cut, learner, lerp, quiet_fit, told, train, watch

torch.set_num_threads(1)
ce = nn.CrossEntropyLoss()
each = nn.CrossEntropyLoss(reduction='none')
HIDDEN = dict(mix_input=False)

def follows(model, batches, mixer, right, *cbs, **kw):
    "Every batch that was trained on predicts what one of `right(b)` says; returns the error, if any"
    seen,error,_,_ = train(model, batches, mixer, *cbs, **kw)
    for b in seen:
        with torch.no_grad(): want = right(b)
        assert not b.mixed or any(torch.allclose(b.pred, o, atol=1e-4) for o in want)
    return error

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a,self.b,self.h = nn.Linear(6,6),nn.Linear(6,6),nn.Linear(6,3)
    def forward(self, x): return self.h(self.b(self.a(x)))

torch.manual_seed(0)
X,Y = torch.randn(64,6),torch.randint(0, 3, (64,))
BATCHES = cut(8, X, Y)
def mixed(net): return lambda b: [lerp(b, net(b.x[0]))] # a linear network: the mixture of its predictions
def manifold(**kw): return fm.ManifoldMixUp(8., **HIDDEN, **kw)


# What the first batch lacks

LENGTHS = torch.tensor([3,10,5,7,2,9,4,6])
FULL = torch.randint(1, 20, (8,10))
RAGGED = torch.randint(1, 20, (8,10))*(torch.arange(10)<LENGTHS[:,None])

class OwnMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.e,self.h = nn.Embedding(20,8),nn.Linear(8,3)
    def forward(self, x):
        m = (x!=0).float()[...,None]
        return self.h((self.e(x)*m).sum(1)/m.sum(1))

def test_padding_in_a_later_batch_ends_the_fit():
    rows,error,said,_ = train(OwnMask(), [(FULL,Y[:8]),(RAGGED,Y[:8])], fm.MixUp(8.))
    assert len(rows)==1 and 'without padding' in error and any('looks for padding' in o for o in said)

def test_padding_in_the_first_batch_is_refused():
    rows,error,*_ = train(OwnMask(), [(RAGGED,Y[:8])], fm.MixUp(8.))
    assert not rows and 'goes round' in error

class OwnFloatMask(nn.Module):
    "Counts the steps that are not all zero, wherever it is mixed"
    def __init__(self, channels=False):
        super().__init__()
        self.a,self.b,self.h,self.channels = nn.Linear(4,8,bias=False),nn.Linear(8,8,bias=False),nn.Linear(8,3),channels
    def forward(self, x):
        if self.channels: x = x.transpose(1, 2)
        m = (x.abs().sum(-1, keepdim=True)>0).float()
        return self.h((self.b(self.a(x))*m).sum(1)/m.sum(1))

FULL_STEPS = torch.randn(8,10,4)
RAGGED_STEPS = FULL_STEPS*(torch.arange(10)<LENGTHS[:,None])[...,None]
@pytest.mark.parametrize('channels', (False,True))
def test_floats_with_padding_in_a_later_batch(channels):
    full,ragged = (o.transpose(1, 2).contiguous() if channels else o for o in (FULL_STEPS,RAGGED_STEPS))
    net = OwnFloatMask(channels)
    batches = [(full,Y[:8])]*3+[(ragged,Y[:8])]
    rows,error,said,_ = train(net, batches, manifold(layers='a'))
    assert len(rows)==3 and 'without padding' in error and any('looks for padding' in o for o in said)
    rows,error,said,_ = train(net, batches, fm.ManifoldMixUp(8.))
    assert len(rows)==4 and error is None and all(not torch.equal(b.given[0], b.x[0]) for b in rows) # at the input alone
    assert 'goes round' in train(net, [(ragged,Y[:8])], manifold(layers='a'))[1]

class Sentinel(OwnFloatMask):
    "Padding is what equals `value`, along dimension `at` of inputs `(B,T,F)`, `(B,T)`, `(B,1,T,F)` or `(B,C,T,H,W)`"
    def __init__(self, value, kind='steps'):
        super().__init__()
        self.value,self.kind = value,kind
    def forward(self, x):
        x = dict(steps=x, row=x[...,None].expand(*x.shape, 4) if x.ndim==2 else x, image=x[:,0] if x.ndim==4 else x,
            video=x[:,0].flatten(2) if x.ndim==5 else x)[self.kind]
        pad = x.isnan() if np.isnan(self.value) else x==self.value
        m = (~pad.all(-1, keepdim=True)).float()
        return self.h((self.b(self.a(x.nan_to_num()))*m).sum(1)/m.sum(1))

FEW = torch.where(torch.arange(64)%8==3, 4, 10)
def sequences(kind, lengths, value):
    x = dict(steps=torch.randn(64,10,4), row=torch.randn(64,10), image=torch.randn(64,1,10,4), video=torch.randn(64,3,10,2,2))[kind]
    at = 2 if x.ndim>3 else 1
    past = (torch.arange(10)>=lengths[:,None]).view(64, *[10 if d==at else 1 for d in range(1, x.ndim)])
    return x.masked_fill(past, value)

@pytest.mark.parametrize('kind', ('steps','row','image','video'))
@pytest.mark.parametrize('value', (0.,-1.,-100.,np.nan))
def test_padding_by_any_value_is_found(kind, value):
    y = torch.randint(0, 3, (64,))
    few,full = sequences(kind, FEW, value),sequences(kind, FEW*0+10, value)
    for layers in ('a',None):
        _,error,_,_ = train(Sentinel(value, kind), [(few,y)], manifold(layers=layers))
        assert error is not None
    if kind!='steps' and value!=0: return # another value that comes later is looked for in sequences alone
    rows,error,*_ = train(Sentinel(value, kind), [(full,y)]*3+[(few,y)], manifold(layers='a'))
    assert len(rows)==3 and error is not None

UNPADDED = dict(counts=torch.randint(0, 5, (64,1,30)).float(), heart=torch.randint(60, 64, (64,30,1)).float(), audio=(3*torch.randn(64,1,30)).clamp(-1, 1),
    decibel=(40*torch.randn(64,6,30)-60).clamp(min=-80), binary=torch.randint(1, 3, (64,1,30)).float())
@pytest.mark.parametrize('kind', UNPADDED)
def test_values_that_samples_happen_to_end_with_are_no_padding(kind):
    net,x = nn.Sequential(nn.Flatten(), nn.Linear(UNPADDED[kind][0].numel(), 3)),UNPADDED[kind]
    _,error,said,_ = train(net, [(x,torch.randint(0, 3, (64,)))]*3, fm.MixUp(8.))
    assert error is None and not any('as padding' in o for o in said)

@pytest.mark.parametrize('value', (-1.,np.nan))
@pytest.mark.parametrize('mixer', (fm.MixUp(8.),fm.CutMix(dims=1),fm.ManifoldMixUp(8.)), ids=str)
def test_padding_that_a_mix_of_inputs_spoils_is_announced(value, mixer):
    few,zeros = sequences('steps', FEW, value),sequences('steps', FEW, 0.)
    y = torch.randint(0, 3, (64,))
    said = train(Sentinel(value), [(few,y)]*2, mixer)[2]
    assert sum('the mixture is neither' in o for o in said)==(not isinstance(mixer, fm.CutMix))
    assert not any('the mixture is neither' in o for o in train(Sentinel(0.), [(zeros,y)]*2, mixer)[2])

def test_floats_whose_padding_the_model_does_not_look_for_may_have_some():
    class Mean(OwnFloatMask):
        def forward(self, x): return self.h(self.b(self.a(x)).mean(1))
    net = Mean()
    assert follows(net, [(FULL_STEPS,Y[:8]),(RAGGED_STEPS,Y[:8])], manifold(), lambda b: [lerp(b, net(b.x[0]))]) is None

def test_a_column_of_categories_that_is_constant_at_first():
    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.e,self.t,self.h = nn.Embedding(10,4),nn.Parameter(torch.randn(5,4)),nn.Linear(4,3)
        def forward(self, x): return self.h(self.e(x[:,0])+self.t[x[:,1]])
    x = torch.stack([torch.randint(0, 10, (8,)),torch.zeros(8).long()], 1)
    rows,error,*_ = train(Columns(), [(x,Y[:8])], fm.MixUp(8.))
    assert not rows and error


# How a place runs

class Micro(Net):
    "At most 16 samples at a time"
    def forward(self, x): return torch.cat([super(Micro, self).forward(o) for o in x.split(16)])
class Loop(Net):
    "As many steps as the sequence has"
    def forward(self, x):
        h = 0
        for t in range(x.shape[1]): h = self.b(self.a(x[:,t])+h)
        return self.h(h)
class TimeFirst(Net):
    def forward(self, x):
        N,T,_ = x.shape
        return self.h(self.a(x.transpose(0,1).reshape(T*N, 6)).view(T, N, 6).sum(0))
STEPS = [(torch.randn(8,t,6),Y[:8]) for t in (1,3,3)]
@pytest.mark.parametrize('cls, batches, layer', ((Micro,cut(32, X, Y),'b'), (Loop,STEPS,'b'), (TimeFirst,STEPS,'a')))
def test_a_place_runs_as_it_was_tried(cls, batches, layer):
    net = cls()
    assert follows(net, batches, manifold(layers=layer), mixed(net))

class Dropped(Net):
    def forward(self, x):
        x,self.ran = self.a(x),torch.rand(()).item()>=.5
        return self.h(self.b(x) if self.ran else x)
def test_a_dropped_layer_leaves_the_batch_plain():
    torch.manual_seed(0)
    net = Dropped()
    with fm.PlainLoop(manifold(layers='b'), net, ce) as loop:
        plain = 0
        for x,y in BATCHES*2:
            b = loop(x, y)
            pred = b.predict()
            if net.ran: continue
            plain += 1
            assert torch.allclose(b.loss(pred), ce(pred, y))
    assert plain
    class Again(Callback):
        order,run_valid,n = 20,False,0
        def before_step(self):
            pred,m = self.learn.mixer.forward(),self.learn.mixer
            if self.model.ran: return
            self.n += 1
            assert torch.allclose(m.loss(pred), ce(pred, self.y))
    train(net, BATCHES, manifold(layers='b'), again := Again())
    assert again.n

def test_another_model_is_refused():
    net = Net()
    with fm.PlainLoop(manifold(layers='b'), net, ce) as loop:
        b = loop(*BATCHES[0])
        with pytest.raises(RuntimeError, match='predict with the model that trains'): b.predict(Net())


# Branches by chance, and branches that open later

COINS = dict(python=lambda: random.random()<.5, choice=lambda: random.choice([True,False]), numpy=lambda: np.random.rand()<.5,
    integers=lambda: np.random.randint(2)==1, randint=lambda: int(torch.randint(2, ()))==1, randn=lambda: float(torch.randn(()))>0,
    multinomial=lambda: int(torch.multinomial(torch.tensor([.6,.4]), 1))==1, rand=lambda: float(torch.rand(()))<.5)
@pytest.mark.parametrize('coin', COINS)
def test_a_skip_at_random_is_refused(coin):
    class Skip(Net):
        def forward(self, x):
            z = self.b(self.a(x))
            return self.h(z+x if COINS[coin]() else z)
    rows,error,*_ = train(Skip(), BATCHES, manifold(layers='b'))
    assert not rows and 'name other `layers`' in error

def test_a_skip_that_opens_later_ends_the_fit():
    class Gated(Net):
        gate = 0.
        def forward(self, x): return self.h(self.b(self.a(x))+self.gate*x)
    class Open(Callback):
        def after_batch(self): self.learn.model.gate = 1.
    rows,error,*_ = train(Gated(), BATCHES, manifold(), Open())
    assert len(rows)==1 and 'in mixed batch 2 they do not' in error

def test_a_loss_that_is_exchanged_is_tried_again():
    class Two(Net):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(6,3)
        def forward(self, x): return super().forward(x),self.w(x)
    class Exchange(Callback):
        def before_epoch(self):
            if self.epoch: self.learn.loss_func = lambda p,t: ce(p[0], t)+ce(p[1], t)
    rows,error,*_ = train(Two(), BATCHES, manifold(), Exchange(), loss=lambda p,t: ce(p[0], t), epochs=2)
    assert len(rows)==8 and 'the model or the loss has changed' in error
    rows,error,*_ = train(Two(), BATCHES, manifold(), loss=lambda p,t: (each(p[0], t)*p[1].detach().sigmoid().mean(1)).mean())
    assert not rows and error # reads the second output without a gradient


# Inputs that are no quantities

N = torch.tensor([2,10]*4)
MASK = torch.arange(10)<N[:,None]
SEQ = torch.randn(8,10,4)*MASK[...,None]
class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.Linear(4,3)
    def forward(self, x, m):
        m = m.reshape(len(x), -1, 1)
        return self.h((x*m).sum(1)/m.sum(1))
@pytest.mark.parametrize('shape', ((8,10),(8,10,1),(8,1,10)))
def test_float_masks_are_united(shape):
    net,m = Masked(),MASK.float().view(shape)
    def right(b): return [net(lerp(b, b.x[0]), torch.maximum(b.x[1], b.x[1][b.perm]))]
    assert follows(net, [(SEQ,m,Y[:8])], fm.MixUp(8.), right, n_inp=2) is None

@pytest.mark.parametrize('mixer', (fm.MixUp(8.), fm.ManifoldMixUp(8.)))
def test_a_number_beside_a_mask_is_left_alone(mixer):
    class Scaled(Masked):
        def forward(self, x, m, s): return super().forward(x, m)*s
    net = Scaled()
    def right(b): return [net(lerp(b, b.x[0]), torch.maximum(b.x[1], b.x[1][b.perm]), b.x[2])]
    assert follows(net, [(SEQ,MASK.float(),torch.tensor(2.),Y[:8])], mixer, right, n_inp=3) is None

def test_a_mask_over_images_is_pasted_with_them():
    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.Linear(3,3)
        def forward(self, x, m): return self.h((x*m).sum((2,3))/m.sum((2,3)))
    x,m = torch.randn(8,3,6,6),(torch.rand(8,1,6,6)>.4).float()
    m[:,:,0,0] = 1
    seen = []
    class See(Callback):
        order,run_valid = 20,False
        def after_pred(self): seen.append(([o.detach() for o in self.learn.xb],self.learn.mixer.boxes,self.learn.mixer.perm))
    _,error,*_ = train(Pixels(), [(x,m,Y[:8])], fm.CutMix(), See(), n_inp=2)
    (xm,mm),boxes,perm = seen[0]
    for i,(b,j) in enumerate(zip(boxes.tolist(), perm.tolist())):
        inside = torch.zeros(6,6, dtype=torch.bool)
        inside[slice(*b[0]),slice(*b[1])] = True
        assert torch.equal(mm[i,0], torch.where(inside, m[j,0], m[i,0])) and torch.equal(xm[i], torch.where(inside, x[j], x[i]))
    assert error is None

class Lengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.Linear(4,3)
    def forward(self, x, n):
        n = torch.as_tensor(n)
        n = (n*x.shape[1]).round() if n.is_floating_point() else n
        m = (torch.arange(x.shape[1])<n.view(-1, 1)).float()[...,None]
        return self.h((x*m).sum(1)/m.sum(1).clamp(min=1))
@pytest.mark.parametrize('n, words', ((N.numpy(),'array of NumPy'), (N.tolist(),'list of 8 numbers'), (N/10,'how much of another input'), (N,'input 1')))
def test_lengths_are_refused(n, words):
    rows,error,*_ = train(Lengths(), [(SEQ,n,Y[:8])], fm.MixUp(8.), n_inp=2)
    assert not rows and words in error

def test_codes_in_a_table_of_floats_are_refused():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.e,self.h = nn.Embedding(10,4),nn.Linear(7,3)
        def forward(self, x): return self.h(torch.cat([self.e(x[:,0].long()),x[:,1:]], 1))
    x = torch.cat([torch.randint(0, 10, (16,1)).float(),torch.randn(16,3)], 1)
    rows,error,*_ = train(Table(), cut(8, x, Y[:16]), fm.MixUp(8.))
    assert not rows and 'the model casts input 0, or a part of it, to whole numbers' in error
    ages = torch.cat([torch.randint(20, 80, (16,1)).float(),torch.randn(16,5)], 1)
    rows,error,*_ = train(nn.Linear(6,3), cut(8, ages, Y[:16]), fm.MixUp(8.))
    assert len(rows)==2 and error is None # whole numbers that are quantities

def test_time_first_with_as_many_steps_as_samples_is_refused():
    class First(Net):
        def forward(self, x): return self.h(x.cumsum(0)[-1])
    rows,error,*_ = train(First(), [(torch.randn(8,8,6),Y[:8])], fm.MixUp(8.))
    assert not rows and 'follows the number of rows' in error

def test_a_label_among_the_inputs_is_refused():
    class Arc(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(6,3)
        def forward(self, x, y): return self.f(x)-.3*F.one_hot(y, 3)
    rows,error,*_ = train(Arc(), cut(8, X, Y, Y), fm.MixUp(8., inputs=0), n_inp=2)
    assert not rows and 'equals a target' in error


# Other callbacks

@pytest.mark.parametrize('how', ('remove_cbs','added_cbs'))
def test_callbacks_may_come_and_go_within_a_batch(how):
    class Within(Callback):
        order = 20
        def before_batch(self):
            if not self.training or self.iter!=1: return
            if how=='remove_cbs': self.learn.remove_cbs([Spare])
            else:
                with self.learn.added_cbs([Callback()]): pass
    class Spare(Callback): pass
    rows,error,*_ = train(nn.Linear(6,3), BATCHES, fm.MixUp(8.), Within(), Spare())
    assert error is None
    assert len(rows)==len(BATCHES)
    for b in rows: assert torch.allclose(b.loss, (b.lam*each(b.pred, b.y[0])+(1-b.lam)*each(b.pred, b.y1[0])).mean())

def test_inputs_and_targets_changed_behind_the_mixer_are_announced():
    class Shuffle(Callback):
        order,run_valid = 50,False
        def before_batch(self):
            p = torch.randperm(len(self.y))
            self.learn.xb,self.learn.yb = (self.x[p],),(self.y[p],)
    said = train(nn.Linear(6,3), BATCHES, fm.MixUp(8.), Shuffle())[2]
    assert sum('after they were mixed' in o for o in said)==1

@pytest.mark.parametrize('reentrant', (True,False))
def test_a_clean_pass_before_a_mixed_one_under_checkpoints(reentrant):
    class Checkpointed(Net):
        on = True
        def forward(self, x):
            def f(x): return self.b(self.a(x).tanh()).tanh()
            return self.h(checkpoint(f, x.requires_grad_(), use_reentrant=reentrant) if self.on else f(x))
    class Clean(Callback):
        order,run_valid = 5,False
        def before_batch(self): self.clean = ce(self.learn.model(self.x), self.y)
        def before_backward(self): self.learn.loss_grad = self.learn.loss_grad+self.clean
    res = []
    for on in (True,False):
        net = Checkpointed()
        net.on = on
        *_,error,_,learn = train(net, [(X[:8],Y[:8])]*2, manifold(layers='a', generator=torch.Generator().manual_seed(1)), Clean(), lr=.1)
        res.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        assert error is None
    assert torch.allclose(*res, atol=1e-6)


def test_targets_made_behind_the_mixer_are_announced():
    class Double(Callback):
        order = 1000
        def before_batch(self): self.learn.yb = (2*self.x,)
    class Keep(Net):
        def forward(self, x): return self.b(self.a(x))
    rows,error,said,_ = train(Keep(), [(x,x) for x,_ in BATCHES], fm.MixUp(8.), Double(), loss=lambda p,t: F.mse_loss(p, t))
    assert error is None and len(rows)==len(BATCHES) and sum('makes targets of the mixed inputs' in o for o in said)==1


# What a trial leaves behind: nothing

class Counter:
    __slots__ = ('n',)
class Kept(Net):
    "Counts its calls wherever a model may"
    calls,log = 0,[]
    def __init__(self):
        super().__init__()
        Kept.calls,k,self.slot,self.rng = 0,0,Counter(),np.random.RandomState(0)
        self.slot.n,self.frozen = 0,Frozen(a=1)
        def count():
            nonlocal k
            k += 1
            return k
        self.count,self.hooked = count,dict(n=0)
        hooked = self.hooked
        self.a.register_forward_hook(lambda m,i,o: hooked.update(n=hooked['n']+1))
    def forward(self, x):
        Kept.calls += 1
        self.slot.n += 1
        self.counts = Kept.calls,self.slot.n,self.count(),self.hooked['n'],self.rng.rand()
        return super().forward(x)
class Frozen(OrderedDict):
    def update(self, *args, **kw): raise TypeError('frozen')
def test_counts_and_generators_are_put_back():
    res = []
    for mixer in (fm.ManifoldMixUp(0., **HIDDEN),fm.MixUp(0.)):
        net = Kept()
        _,error,*_ = train(net, BATCHES, mixer)
        assert error is None and dict(net.frozen)=={'a':1}
        res.append(net.counts)
    assert res[0]==res[1]

def test_gradients_are_put_back():
    class Energy(Net):
        "Takes a step along the gradient of an energy"
        def forward(self, x):
            with torch.enable_grad():
                z = x.detach().clone().requires_grad_()
                super().forward(z).square().mean().backward()
            return super().forward(x-z.grad)
    res = []
    for mixer in (fm.ManifoldMixUp(0., layers='h', **HIDDEN, generator=torch.Generator()),fm.MixUp(0., generator=torch.Generator())):
        net = Energy()
        _,error,*_ = train(net, BATCHES[:2], mixer, lr=.1)
        assert error is None
        res.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*res)

def test_a_loss_with_a_state_is_announced():
    class Scheduled(nn.Module):
        k = 0
        def forward(self, p, t):
            self.k += 1
            return F.cross_entropy(p, t)/self.k
    said = train(nn.Linear(6,3), BATCHES, fm.MixUp(per_sample=False), loss=Scheduled())[2]
    assert sum('called twice' in o for o in said)==1


# Batches that are made of other parts than the first

class Pooled(nn.Module):
    "The mean of what a mask shows; of all, without one"
    def __init__(self, tokens):
        super().__init__()
        self.e = nn.Embedding(20, 4) if tokens else nn.Linear(4,4)
        self.h = nn.Linear(4,3)
    def pool(self, h, m):
        m = torch.ones(h.shape[:2]) if m is None else m.float()
        return self.h((h*m[...,None]).sum(1)/m.sum(1, keepdim=True))
    def forward(self, x, m=None):
        if isinstance(x, dict): x,m = x['x'],x.get('m')
        return self.pool(self.e(x), m)
def union(b, m): return m if m is None else m | m[b.perm]
@pytest.mark.parametrize('tokens', (False,True))
@pytest.mark.parametrize('masked', ((0,0,1,0,1),(1,0,1)))
def test_masks_that_some_batches_lack(tokens, masked):
    net = Pooled(tokens)
    def x(): return torch.randint(1, 20, (8,10)) if tokens else torch.randn(8, 10, 4)
    def right(b):
        m = union(b, b.x[1])
        return [net.pool(lerp(b, net.e(b.x[0])), m)] if tokens else [net(lerp(b, b.x[0]), m)]
    batches = [(x()*(1 if tokens or not o else MASK[...,None]),MASK if o else None,Y[:8]) for o in masked]
    seen,error,_,_ = train(net, batches, fm.MixUp(8.), n_inp=2)
    assert error is None and len(seen)==len(masked) and follows(net, batches, fm.MixUp(8.), right, n_inp=2) is None

def test_keys_that_some_batches_lack():
    net = Pooled(False)
    def right(b): return [net(lerp(b, b.x[0]['x']), union(b, b.x[0].get('m')))]
    batches = [(dict(m=MASK, x=torch.randn(8,10,4)*MASK[...,None]),Y[:8]),(dict(x=torch.randn(8,10,4)),Y[:8])]
    assert follows(net, batches, fm.MixUp(8.), right) is None

def test_a_layer_that_runs_once_a_step_may_run_more_often():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.e,self.r,self.h = nn.Embedding(20,4),nn.RNNCell(4,4),nn.Linear(4,3)
        def tail(self, e):
            h = torch.zeros(len(e), 4)
            for o in e.unbind(1): h = self.r(o, h)
            return self.h(h)
        def forward(self, x): return self.tail(torch.stack([self.e(o) for o in x.unbind(1)], 1))
    net = Steps()
    batches = [(torch.randint(20, (8,k)),Y[:8]) for k in (5,7,5,3)]
    assert len(train(net, batches, fm.MixUp(8.))[0])==4
    assert follows(net, batches, fm.MixUp(8.), lambda b: [net.tail(lerp(b, net.e(b.x[0])))]) is None


# What else a loss may read, and what else is no quantity

class Second(Net):
    "Predictions, and something else that goes round all but the first layer"
    def __init__(self, wrap):
        super().__init__()
        self.wrap,self.s = wrap,nn.Linear(6,3)
    def forward(self, x):
        h = self.a(x)
        return self.h(self.b(h)),self.wrap(self.s(h), x)
class Held:
    def __init__(self, t): self.t = t
WRAPS = {'object':(lambda z,x: Held(z), lambda o: o.t), 'distribution':(lambda z,x: torch.distributions.Normal(z, 1.), lambda o: o.mean),
    'rows':(lambda z,x: z[x[:,0]>-.3], lambda o: o)}
@pytest.mark.parametrize('kind', WRAPS)
def test_outputs_that_no_trial_follows_are_refused_if_the_loss_reads_them(kind):
    wrap,read = WRAPS[kind]
    seen,error,*_ = train(Second(wrap), BATCHES, manifold(layers='b'), loss=lambda p,t: ce(p[0], t)+read(p[1]).mean())
    assert not seen and 'the loss reads' in error
    seen,error,*_ = train(Second(wrap), BATCHES, manifold(layers='b'), loss=lambda p,t: ce(p[0], t))
    assert len(seen)==len(BATCHES) and error is None

def test_similarities_follow_in_both_dimensions():
    sim = lambda z,x: z@z.T
    loss = lambda p,t: ce(p[0], t)+(p[1]-(t[:,None]==t).float()).square().mean()
    seen,error,*_ = train(Second(sim), BATCHES, manifold(layers='b'), loss=loss)
    assert not seen and 'goes round' in error
    assert train(Second(sim), BATCHES, manifold(layers='a'), loss=loss)[1] is None

def test_a_small_entry_of_a_prediction_counts_beside_a_large_one():
    class Price(Net):
        def forward(self, x): return torch.cat([self.h(self.a(x))[:,:1]*3e5+2e5,self.h(self.b(x))[:,1:]], 1)
    assert 'goes round' in train(Price(), BATCHES, manifold(layers='a'))[1]

class Added(nn.Module):
    "Attention, with a mask that is added to the scores"
    def __init__(self):
        super().__init__()
        self.a,self.h = nn.Linear(4,1),nn.Linear(4,3)
    def forward(self, x, m): return self.h((x*(self.a(x)[...,0]+m).softmax(1)[...,None]).sum(1))
@pytest.mark.parametrize('low', (-1e9,-np.inf))
def test_masks_that_are_added_are_united(low):
    net,m = Added(),torch.zeros(8,10).masked_fill(~MASK, low)
    def right(b): return [net(lerp(b, b.x[0]), torch.maximum(b.x[1], b.x[1][b.perm]))]
    assert follows(net, [(SEQ,m,Y[:8])], fm.MixUp(8.), right, n_inp=2) is None

def test_a_mask_over_a_square_spectrogram_is_united():
    class Spectra(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.Linear(10,3)
        def forward(self, x, m): return self.h((x[:,0]*m[:,None]).sum(2)/m.sum(1, keepdim=True))
    net = Spectra()
    def right(b): return [net(lerp(b, b.x[0]), torch.maximum(b.x[1], b.x[1][b.perm]))]
    x = torch.randn(8,1,10,10)*MASK[:,None,None]
    assert follows(net, [(x,MASK.float(),Y[:8])], fm.MixUp(8.), right, n_inp=2) is None

def test_what_may_be_a_mask_and_hides_nothing_is_said():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.c,self.m = nn.Conv1d(4,4,3,padding=1),Masked()
        def forward(self, x, m): return self.m(self.c(x.transpose(1,2)).transpose(1,2), m)
    _,error,said,_ = train(Leaky(), [(SEQ,MASK.float(),Y[:8])], fm.MixUp(8.), n_inp=2)
    assert error is None and 'has two values, as a mask has' in ' '.join(said)

def test_lengths_in_steps_are_refused():
    class Steps(Masked):
        def forward(self, x, n): return super().forward(x, (torch.arange(x.shape[1])<n.view(-1, 1)).float())
    assert 'how much of another input counts' in train(Steps(), [(SEQ,N.float(),Y[:8])], fm.MixUp(8.), n_inp=2)[1]

class Coded(nn.Module):
    "Floats, the last of which are codes of categories"
    def __init__(self, scale=1):
        super().__init__()
        self.e,self.l,self.h,self.scale = nn.Embedding(30,4),nn.Linear(3,4),nn.Linear(4,3),scale
    def forward(self, x):
        h = self.l(x[...,:3])+self.e((x[...,3]*self.scale).nan_to_num().round().long())
        return self.h(h.flatten(1, -2).mean(1) if h.ndim>2 else h)
@pytest.mark.parametrize('size', ((),(10,),(4,4)))
@pytest.mark.parametrize('most', (2,20))
def test_codes_among_floats_are_refused(size, most):
    x = torch.cat([torch.randn(8,*size,3),torch.randint(most, (8,*size,1)).float()], -1)
    assert 'casts input 0' in train(Coded(), [(x,Y[:8])], fm.MixUp(8.))[1]
    x[0] = np.nan
    assert 'casts input 0' in train(Coded(), [(x,Y[:8])], fm.MixUp(8.))[1]

@pytest.mark.parametrize('what, words', ((list('abcdefgh'),'list of 8 strings'), (Held(X[:8]),'is a Held')))
def test_samples_in_what_is_no_tensor_are_refused(what, words):
    class Beside(Net):
        def forward(self, x, o): return super().forward(x)
    assert words in train(Beside(), [(X[:8],what,Y[:8])], fm.MixUp(8.), n_inp=2)[1]
    assert train(Beside(), [(X[:8],what,Y[:8])], fm.MixUp(8., inputs=0), n_inp=2)[1] is None

def test_targets_that_are_the_mixed_inputs_are_not_mixed_again():
    class Auto(Callback):
        order = 50
        def after_pred(self): self.learn.yb = self.learn.xb
    mse = nn.MSELoss()
    seen,error,*_ = train(nn.Linear(6,6), [(X[:8],X[:8])], fm.MixUp(8., stack_y=True), Auto(), loss=lambda p,t: mse(p, t))
    assert error is None and torch.allclose(seen[0].loss, mse(seen[0].pred, lerp(seen[0], X[:8])))

def test_a_loss_that_remembers_is_announced():
    class Memory(nn.Module):
        def __init__(self):
            super().__init__()
            self.past = torch.zeros(8,3)
        def forward(self, p, t):
            self.past = .7*self.past+.3*p.detach().softmax(1)
            return ce(p, t)-(self.past*p.softmax(1)).sum(1).mean()
    memory = Memory()
    for loss in (memory,lambda p,t: memory(p, t)):
        assert 'changes a state of its own' in ' '.join(train(Net(), BATCHES[:1], fm.MixUp(8.), loss=loss)[2])

@pytest.mark.parametrize('dtype,offset', ((torch.float32,2.), (torch.bfloat16,2.), (torch.float16,20.)))
def test_a_connection_round_a_layer_is_found_in_any_precision(dtype, offset):
    class Offset(Net):
        def forward(self, x): return offset+.2*self.h(self.b(self.a(x))+self.a(x))
    batches = [(x.to(dtype),y) for x,y in BATCHES]
    loss = lambda p,t: ce(p.float(), t)
    assert 'goes round' in train(Offset().to(dtype), batches, manifold(layers='b'), loss=loss)[1]
    assert train(Offset().to(dtype), batches[:1], manifold(layers='a'), loss=loss)[1] is None

def test_entries_that_are_infinite_for_all_follow():
    class Masked(Net):
        def forward(self, x): return super().forward(x).masked_fill(torch.tensor([False,False,True]), -np.inf)
    seen,error,*_ = train(Masked(), [(x,y%2) for x,y in BATCHES], manifold(layers='a'))
    assert error is None and len(seen)==len(BATCHES)

def test_codes_are_seen_where_layers_are_mixed_too():
    class Deep(Coded):
        def __init__(self):
            super().__init__()
            self.b = nn.Linear(4,4)
        def forward(self, x): return self.h(self.b(self.l(x[:,:3])+self.e(x[:,3].long())))
    x = torch.cat([torch.randn(8,3),torch.randint(20, (8,1)).float()], 1)
    seen,error,said,_ = train(Deep(), [(x,Y[:8])]*8, fm.ManifoldMixUp(8.))
    assert error is None and 'never the input' in ' '.join(said) and all(torch.equal(b.given[0], x) for b in seen)

PICKS = dict(slice=lambda x: x[:,3], list=lambda x: x[:,[2,3]][:,1], select=lambda x: x.index_select(1, torch.tensor([3]))[:,0],
    cat=lambda x: torch.cat([x[:,3:],x[:,3:]], 1)[:,0], where=lambda x: torch.where(x[:,3]>0, x[:,3], 0*x[:,3]))
@pytest.mark.parametrize('how', PICKS)
def test_codes_are_seen_however_they_are_picked(how):
    class Picked(Coded):
        def forward(self, x): return self.h(self.l(x[:,:3])+self.e(PICKS[how](x).long()))
    x = torch.cat([torch.randn(8,3),torch.randint(20, (8,1)).float()], 1)
    assert 'casts input 0' in train(Picked(), [(x,Y[:8])], fm.MixUp(8.))[1]

TESTED = dict(argmax=lambda e,x: e(x.argmax(-1)), threshold=lambda e,x: e((x[...,0]>.5).long()), equal=lambda e,x: e((x[...,0]==1).int()),
    where=lambda e,x: torch.where(x[...,:1]>.5, e.weight[0], e.weight[1]), rounded=lambda e,x: e.weight[:6].T@x.round()[...,None],
    frozen=lambda e,x: torch.no_grad()(lambda: e(x.argmax(-1)))(), sign=lambda e,x: (x-.5).sign()@e.weight[:6])
@pytest.mark.parametrize('how', TESTED)
@pytest.mark.parametrize('size', ((),(5,)))
def test_codes_that_are_compared_are_refused(how, size):
    "A model that decides by its input takes the larger part of a mixture for the whole"
    class Tested(nn.Module):
        def __init__(self):
            super().__init__()
            self.e,self.h = nn.Embedding(6,4),nn.Linear(4,3)
        def forward(self, x):
            h = TESTED[how](self.e, x)
            h = h[...,0] if h.ndim>x.ndim else h
            return self.h(h.mean(1) if size else h)
    x = F.one_hot(torch.randint(0, 6, (8,*size)), 6).float()
    x[0,...],x[1,...] = torch.eye(6)[0],torch.eye(6)[1]
    rows,error,*_ = train(Tested(), [(x,Y[:8])], fm.MixUp(8.))
    assert not rows and 'decides by input 0' in error

def test_a_column_of_codes_among_quantities_is_seen_when_it_is_compared():
    class Flagged(Coded):
        def forward(self, x): return self.h(self.l(x[:,:3])*torch.where(x[:,3:]==2, 2., 1.))
    x = torch.cat([torch.randn(8,3),torch.arange(8).float()[:,None]%4], 1)
    assert 'decides by input 0' in train(Flagged(), [(x,Y[:8])], fm.MixUp(8.))[1]

class Column(nn.Module):
    "Quantities, and a last column that `how` turns into features"
    def __init__(self, how, linear=False):
        super().__init__()
        self.l,self.e,self.h,self.how,self.linear = nn.Linear(4,4),nn.Embedding(10,4),nn.Linear(4,3),how,linear
    def forward(self, x):
        x = x.nan_to_num()
        first = x if self.linear else torch.cat([x[:,:3],0*x[:,3:]], 1)
        return self.h(self.l(first)+self.how(self.e, x[:,3:]))
KINDS = torch.arange(10.)
READ = dict(equal=lambda e,c: e.weight[0]*(c==2), near=lambda e,c: ((c-KINDS).abs()<.5).float()@e.weight, round=lambda e,c: (c.round()==KINDS).float()@e.weight)
def table(codes): return torch.cat([torch.randn(8,3),codes.float()[:,None]], 1)

@pytest.mark.parametrize('linear', (False,True))
def test_a_column_may_be_compared_beside_quantities(linear):
    "Also where it is a quantity besides"
    codes = torch.arange(8)%4
    for x in (table(codes),table(torch.where(codes==1, np.nan, codes))):
        assert 'decides by input 0' in train(Column(READ['equal'], linear), [(x,Y[:8])], fm.MixUp(8.))[1]

STEEP = dict(log=lambda x: (x+1e-8).log(), clamped=lambda x: x.clamp(min=1e-10).log10(), norm=lambda x: F.normalize(x), share=lambda x: x/(x.sum(1, keepdim=True)+1e-6),
    standard=lambda x: (x-x.mean(1, keepdim=True))/(x.std(1, keepdim=True)+1e-5))
@pytest.mark.parametrize('how', STEEP)
def test_what_is_steep_at_zero_is_no_jump(how):
    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.Linear(6,3)
        def forward(self, x): return self.h(STEEP[how](x))
    for x in (torch.randint(0, 4, (8,6)).float(),torch.randint(0, 256, (8,6)).float(),F.one_hot(torch.arange(8)%6, 6).float()):
        x[0] = 0.
        rows,error,said,_ = train(Steep(), [(x,Y[:8])], fm.MixUp(8.))
        assert len(rows)==1 and error is None

def test_a_flag_that_chooses_a_head_is_found():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.l,self.a,self.b = nn.Linear(4,4),nn.Linear(4,3),nn.Linear(4,3)
        def forward(self, x):
            h = self.l(x)
            return torch.where(x[:,3:]>.5, self.a(h), self.b(h))
    assert 'decides by input 0' in train(Heads(), [(table(torch.arange(8)%2),Y[:8])], fm.MixUp(8.))[1]

@pytest.mark.parametrize('how', ('equal','cast'))
def test_codes_may_be_constant_in_the_first_batch(how):
    read = READ['equal'] if how=='equal' else lambda e,c: e((c[:,0]*9).round().long())
    codes = torch.arange(8)%4/(1 if how=='equal' else 9)
    first,second = table(codes*0),table(codes)
    rows,error,*_ = train(Column(read), [(first,Y[:8]),(second,Y[:8])], fm.MixUp(8.))
    assert len(rows)<2 and 'input 0' in error
    rows,error,*_ = train(nn.Linear(4,3), [(first,Y[:8]),(second,Y[:8])], fm.MixUp(8.))
    assert len(rows)==2 and error is None

@pytest.mark.parametrize('how', ('near','round'))
def test_steps_of_whole_numbers_are_announced(how):
    rows,error,said,_ = train(Column(READ[how]), [(table(torch.arange(8)),Y[:8])], fm.MixUp(8.))
    assert error and 'decides by' in error or any('in steps' in o for o in said)

@pytest.mark.parametrize('mixer', (fm.MixUp(8.),fm.ManifoldMixUp(8.)), ids=str)
def test_scaled_codes_are_refused(mixer):
    class Map(nn.Module):
        "A map of labels, which was divided as images are"
        def __init__(self):
            super().__init__()
            self.e,self.h = nn.Embedding(6,4),nn.Linear(4,3)
        def forward(self, x): return self.h(self.e((x[:,0]*255).round().long()).mean((1,2)))
    x = torch.randint(0, 6, (8,1,9,9))/255
    rows,error,said,_ = train(Map(), [(x,Y[:8])], mixer)
    assert not rows and error or any('never the input' in o for o in said)

@pytest.mark.parametrize('mixer', (fm.CutMix(dims=-1),fm.FMix(dims=-1)), ids=str)
@pytest.mark.parametrize('read', (lambda e,x: e(x.argmax(1)), lambda e,x: e((x[:,0]+2*x[:,1]).long())))
def test_codes_are_pasted_whole(mixer, read):
    class Dna(nn.Module):
        def __init__(self):
            super().__init__()
            self.e,self.h = nn.Embedding(4,8),nn.Linear(8,3)
        def forward(self, x): return self.h(read(self.e, x).mean(1))
    x = F.one_hot(torch.randint(0, 4, (8,20)), 4).float().transpose(1, 2).contiguous()
    rows,error,said,_ = train(Dna(), [(x,Y[:8])], mixer)
    assert len(rows)==1 and error is None and not any('steps' in o for o in said)

def test_frozen_bodies_of_half_precision_train():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).bfloat16()
            self.h = nn.Linear(8,3)
        def forward(self, x):
            with torch.no_grad(): z = self.body(x.bfloat16())
            return self.h(z.float())
    for x in (torch.randint(0, 2, (8,1,12,12)).float(),torch.randint(0, 256, (8,1,12,12)).float()):
        rows,error,*_ = train(Frozen(), [(x,Y[:8])], fm.MixUp(8.))
        assert len(rows)==1 and error is None

@pytest.mark.parametrize('mixer', (fm.MixUp(8.),fm.ManifoldMixUp(8.)), ids=str)
@pytest.mark.parametrize('size', ((0,),(5,0),(0,5)))
def test_inputs_without_entries_are_left_alone(mixer, size):
    "As the numbers of a table that has categories alone"
    class Categories(nn.Module):
        def __init__(self):
            super().__init__()
            self.e,self.h = nn.Embedding(10,4),nn.Linear(4,3)
        def forward(self, x, z): return self.h(self.e(x).mean(1)+z.flatten(1).sum(1, keepdim=True))
    rows,error,*_ = train(Categories(), [(torch.randint(0, 10, (8,5)),torch.zeros(8, *size),Y[:8])], mixer, n_inp=2)
    assert len(rows)==1 and error is None

INTERPOLATED = dict(plain=nn.Linear(6,3), relu=nn.Sequential(nn.Linear(6,9), nn.ReLU(), nn.Linear(9,3)), norm=nn.Sequential(nn.LayerNorm(6), nn.Linear(6,3)),
    batch=nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6,3)), max=nn.Sequential(nn.Linear(6,8), nn.Unflatten(1, (2,4)), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(2,3)))
@pytest.mark.parametrize('how', INTERPOLATED)
@pytest.mark.parametrize('frozen', (False,True))
def test_whole_numbers_that_are_interpolated_train(how, frozen):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body,self.h = INTERPOLATED[how],nn.Linear(3,3)
        def forward(self, x):
            with torch.set_grad_enabled(not frozen): x = self.body(x)
            return self.h(x)
    for x in (F.one_hot(torch.arange(8)%6, 6).float(),torch.randint(0, 9, (8,6)).float(),torch.randint(0, 2, (8,6)).float()):
        rows,error,*_ = train(Head(), [(x,Y[:8])], fm.MixUp(8.))
        assert len(rows)==1 and error is None

def test_quantities_in_steps_are_no_codes():
    class Steps(Coded):
        def forward(self, x): return self.h(self.l(x[:,:3])+self.e((4*x[:,3]).clamp(0, 9).long()))
    x = torch.cat([torch.randn(8,2),torch.randint(20, 80, (8,1)).float(),torch.rand(8,1)], 1)
    assert train(Steps(), [(x,Y[:8])], fm.MixUp(8.))[1] is None

def test_what_is_never_tried_is_never_missed():
    class Ghost(Net):
        "Normalises halves of the batch by themselves"
        def forward(self, x):
            h = self.a(x)
            return self.h(torch.cat([(o-o.mean(0))/(1e-3+o.std(0)) for o in h.chunk(2)]))
    seen,error,said,_ = train(Ghost(), BATCHES, fm.ManifoldMixUp(8.))
    assert error is None and len(seen)==len(BATCHES) and 'mixes the input alone' in ' '.join(said)

def test_a_loss_may_have_a_variable_that_is_not_set():
    def make(weighted):
        if weighted: w = torch.ones(3)
        return lambda p,t: F.cross_entropy(p, t, weight=w if weighted else None)
    for weighted in (True,False): assert train(Net(), BATCHES, fm.MixUp(8.), loss=make(weighted))[1] is None

def test_padding_masks_keep_two_values_in_a_choice_for_each_sample():
    net,m = Masked(),MASK.float()
    seen,error,*_ = train(net, [(SEQ,m,Y[:8])]*4, fm.MixChoice(fm.ResizeMix(dims=1), fm.MixUp(8.), per_sample=True), n_inp=2)
    assert error is None and all(set(b.given[1].unique().tolist())<={0.,1.} for b in seen)


# What the loss reads from the model beside its predictions

class Keeps(Net):
    "Keeps the predictions of a second head for the loss, as deep supervision may"
    def __init__(self):
        super().__init__()
        self.g = nn.Linear(6,3)
    def forward(self, x):
        h = self.a(x)
        self.kept = self.g(h)
        return self.h(self.b(h))

def both_heads(net):
    def loss(p, t): return ce(p, t)+.4*ce(net.kept, t)
    return loss

@pytest.mark.parametrize('make', (manifold, lambda layers: fm.ManifoldMixUp(8., layers=layers)))
def test_what_the_loss_reads_from_the_model_has_to_be_mixed(make):
    net = Keeps()
    seen,error,*_ = train(net, BATCHES, make(layers='b'), loss=both_heads(net))
    assert not seen and 'the loss also reads something that the model keeps' in error

def test_what_the_loss_reads_from_the_model_may_be_behind_the_place():
    net = Keeps()
    seen,error,said,_ = train(net, BATCHES, manifold(layers='a'), loss=both_heads(net))
    assert error is None and len(seen)==len(BATCHES) and not any('keeps' in o for o in said)
    for b in seen:
        with torch.no_grad():
            x,(y,) = lerp(b, b.x[0]),b.y
            p,k = net(x),net.kept
            own,partners = (ce(p, t)+.4*ce(k, t) for t in (y,y[b.perm]))
        want = b.lam[0]*own + (1-b.lam[0])*partners
        torch.testing.assert_close(b.loss, want, rtol=1e-4, atol=1e-5)

def test_default_places_are_before_all_that_the_loss_reads():
    net = Keeps()
    seen,error,_,learn = train(net, BATCHES*4, fm.ManifoldMixUp(8.), loss=both_heads(net))
    assert error is None and len(seen)==4*len(BATCHES)
    for b in seen:
        if b.mixed: torch.testing.assert_close(b.pred, lerp(b, net(b.x[0])), rtol=1e-4, atol=1e-4)

def test_a_regulariser_of_what_the_model_keeps_needs_no_mix():
    class Experts(Keeps):
        def forward(self, x):
            self.share = self.a(x).softmax(-1).mean(0)
            return super().forward(x)
    net = Experts()
    for mixer in (manifold(layers='b'), fm.OutputMixUp(8.)):
        seen,error,said,_ = train(net, BATCHES, mixer, loss=lambda p,t: ce(p, t)+net.share.square().sum())
        assert error is None and len(seen)==len(BATCHES) and not any('keeps' in o for o in said)

def test_outputs_are_not_mixed_without_what_else_the_loss_reads():
    net = Keeps()
    seen,error,*_ = train(net, BATCHES, fm.OutputMixUp(8.), loss=both_heads(net))
    assert not seen and 'the loss also reads something that the model keeps' in error

def test_it_is_said_where_it_can_not_be_tried_what_the_loss_reads():
    net = Keeps()
    seen,error,said,_ = train(net, [(x,0*y) for x,y in BATCHES], manifold(layers='b'), loss=both_heads(net))
    assert error is None and any('have the same target' in o for o in said)

@pytest.mark.parametrize('steps', (8,5))
def test_outputs_are_mixed_along_the_batch_wherever_it_is(steps):
    class Late(Net):
        "Predicts `(T,B,C)`, as CTC wants it, and an auxiliary `(L,B,C)` with as many layers as samples"
        def forward(self, x):
            p = super().forward(x)
            return torch.stack([p*(k+1) for k in range(steps)]),torch.stack([p-k for k in range(8)])
    net = Late()
    def loss(p, t): return sum(ce(o.mean(0), t) for o in p)
    seen,error,*_ = train(net, BATCHES, fm.OutputMixUp(8.), loss=loss)
    assert error is None and len(seen)==len(BATCHES)
    for b in seen:
        with torch.no_grad(): want = net(b.x[0])
        for p,q in zip(b.pred, want):
            torch.testing.assert_close(p, lerp(b, q.movedim(1, 0)).movedim(0, 1), rtol=1e-4, atol=1e-4)

def test_similarities_are_no_outputs_to_mix():
    class Pairwise(Net):
        def forward(self, x):
            p = super().forward(x)
            return p@p.T
    def loss(p, t): return F.binary_cross_entropy_with_logits(p, (t[:,None]==t).float())
    assert 'each pair of samples' in train(Pairwise(), BATCHES, fm.OutputMixUp(8.), loss=loss)[1]


# What a trial would leave behind

PASSES,LOG = 0,[]

def note(x):
    LOG.append(len(x))
    return x

class Counted(Net):
    "Counts its passes in the module that it is written in"
    def forward(self, x):
        global PASSES
        PASSES += 1
        return super().forward(note(x))

def test_a_trial_is_not_counted_in_the_module_of_a_model():
    global PASSES
    for mixer in (fm.MixUp(p=0.),manifold()):
        PASSES = 0
        LOG.clear()
        train(Counted(), BATCHES, mixer)
        if mixer.name=="mix_up": plain = PASSES,[*LOG]
    assert (PASSES,LOG)==plain and len(LOG)>=len(BATCHES)

class Stepped(Net):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps
    def forward(self, x):
        next(self.steps)
        return super().forward(x)

@pytest.mark.parametrize('make', (lambda: iter(range(10**6)), lambda: (o for o in range(10**6)), lambda: itertools.count()))
def test_an_iterator_can_not_be_taken_back_and_that_is_said(make):
    assert any('iterator' in o for o in train(Stepped(make()), BATCHES, manifold(), plain=Net())[2])
    assert not any('iterator' in o for o in train(Net(), BATCHES, manifold())[2])


# No batch

def test_it_is_said_when_no_batch_is_full():
    from fastai.basics import DataLoaders, Learner
    for n,is_said in ((6,True),(8,False)):
        dls = DataLoaders.from_dsets([*zip(X[:n], Y[:n])], [*zip(X[:n], Y[:n])], bs=8, num_workers=0, device='cpu')
        learn = Learner(dls, Net(), loss_func=ce).mixup()
        with warnings.catch_warnings(record=True) as warned, learn.no_bar(), learn.no_logging():
            warnings.simplefilter('always')
            learn.fit(2)
        assert sum('smaller `bs`' in o for o in told(warned))==is_said


# What else a loss may read

KEPT = {}
class Aside(Callback):
    "Puts a weight for each sample aside, where the loss finds it"
    order,run_valid = -5,False
    def before_batch(self): KEPT['w'] = self.x[:,0].abs()

def weighted(p, t): return (each(p, t)*KEPT['w']).sum()/KEPT['w'].sum()

@pytest.mark.parametrize('make', (lambda: fm.MixUp(8.), lambda: manifold(layers='b'), lambda: fm.OutputMixUp(8.), lambda: fm.MixChoice(fm.MixUp(8.), fm.CutMix(.5))))
def test_weights_of_samples_kept_elsewhere_are_announced(make):
    x = torch.randn(64,6,4) if isinstance(make(), fm.MixChoice) else X
    net = nn.Sequential(nn.Flatten(), nn.Linear(24,3)) if x.ndim==3 else Net()
    def loss(p, t): return weighted(p, t) if x.ndim==2 else (each(p, t)*KEPT['w'][:,0]).mean()
    seen,error,said,_ = train(net, cut(8, x, Y), make(), Aside(), loss=loss)
    assert error is None and len(seen)==8 and sum('may also read' in o or 'change places' in o for o in said) in (1,2) # by the trial, and by the whole batch

def test_plain_loops_announce_them_too():
    with warnings.catch_warnings(record=True) as warned, fm.PlainLoop(fm.MixUp(8.), Net(), weighted) as loop:
        warnings.simplefilter('always')
        for x,y in BATCHES:
            KEPT['w'] = x[:,0].abs()
            b = loop(x, y)
            b.loss(b.predict())
    assert sum('may also read' in o for o in told(warned))==sum('changes when samples' in o for o in told(warned))==1

def focal(p, t): return ((1-p.softmax(-1).gather(1, t[:,None])[:,0]).square()*each(p, t)).mean()
def dice(p, t):
    p,t = p.softmax(-1),F.one_hot(t, 3)
    return 1-(2*(p*t).sum(0)/(p+t).sum(0)).mean()
def pairwise(p, t): return F.binary_cross_entropy_with_logits(p@p.T, (t[:,None]==t).float())
def noisy(p, t): return ce(p+.1*torch.randn_like(p), t)
@pytest.mark.parametrize('loss', (focal, dice, pairwise, noisy))
def test_losses_of_predictions_and_targets_are_not_suspected(loss):
    seen,error,said,_ = train(Net(), BATCHES, fm.MixUp(8.), loss=loss)
    assert error is None and len(seen)==len(BATCHES) and not any('kept elsewhere' in o for o in said)

def test_a_loss_that_cannot_be_tried_is_announced():
    net = Keeps()
    def even(p, t):
        a,b = p.chunk(2)
        return ce(p, t)+ce(net.kept, t)+(a-b).square().mean()
    for mixer in (manifold(layers='b'), fm.OutputMixUp(8.)): assert any('stops on 7' in o for o in train(net, BATCHES, mixer, loss=even)[2])

def test_what_a_loss_reads_from_a_later_batch_on_is_found_when_it_is_tried_again():
    class Grow(Callback):
        def before_batch(self): KEPT['share'] = self.iter/8
    for mixer,n in ((manifold(layers='b'),1),(fm.OutputMixUp(8.),1)):
        net = Keeps()
        def loss(p, t): return ce(p, t)+KEPT['share']*ce(net.kept, t)
        seen,error,*_ = train(net, BATCHES, mixer, Grow(), loss=loss)
        assert len(seen)==n and error is not None

class Flat(nn.Module):
    "`(T*B,C)` of a model that takes time first, or `(B*T,C)`"
    def __init__(self, first):
        super().__init__()
        self.first,self.l = first,nn.Linear(4,3)
    def forward(self, x): return self.l((x.transpose(0,1) if self.first else x).reshape(-1,4))

@pytest.mark.parametrize('first', (True,False))
def test_flat_outputs_are_mixed_as_they_lie(first):
    x,y,net = torch.randn(64,5,4),torch.randint(3, (64,5)),Flat(first)
    def loss(p, t): return ce(p, (t.T if first else t).reshape(-1))
    seen,error,*_ = train(net, cut(8, x, y), fm.OutputMixUp(8.), loss=loss)
    assert error is None and len(seen)==8
    for b in seen:
        with torch.no_grad(): p = net.l(b.x[0])
        p = lerp(b, p)
        torch.testing.assert_close(b.pred, (p.transpose(0,1) if first else p).reshape(-1,3))

class Tagger(nn.Module):
    "Returns what it makes of tokens, and which of them count or how many"
    def __init__(self, lengths):
        super().__init__()
        torch.manual_seed(0)
        self.lengths,self.e,self.h = lengths,nn.Embedding(20,8),nn.Linear(8,3)
    def forward(self, x): return self.h(self.e(x)),(x!=0).sum(1) if self.lengths else x!=0

@pytest.mark.parametrize('lengths', (False,True))
@pytest.mark.parametrize('make', (lambda: fm.MixUp(8.), lambda: manifold(layers='e'), lambda: fm.OutputMixUp(8.)))
def test_masks_and_lengths_that_a_model_returns_have_to_be_mixed(make, lengths):
    def loss(out, t):
        p,k = out
        k = torch.arange(t.shape[1])<k[:,None] if lengths else k
        return ce(p[k], t[k])
    y = torch.randint(3, RAGGED.shape)
    seen,error,*_ = train(Tagger(lengths), [(RAGGED,y)]*3, make(), loss=loss)
    assert not seen and error is not None

def test_classes_that_a_model_returns_and_the_loss_does_not_read_need_not_follow():
    class Best(Net):
        def forward(self, x):
            p = super().forward(x)
            return p,p.argmax(1)
    for mixer in (manifold(layers='a'), fm.OutputMixUp(8.)):
        seen,error,*_ = train(Best(), BATCHES, mixer, loss=lambda p,t: ce(p[0], t))
        assert error is None and len(seen)==len(BATCHES)

@pytest.mark.parametrize('name', ('weight','pos_weight'))
def test_a_known_loss_with_a_weight_for_each_sample_is_refused(name):
    net,y = nn.Linear(6,1),(Y==0).float()[:,None]
    loss = nn.BCEWithLogitsLoss(**{name: torch.rand(8,1)})
    for mixer in (fm.MixUp(8.), fm.MixUp(8., stack_y=True)):
        assert 'a weight for each class' in train(net, cut(8, X, y), mixer, loss=loss)[1]
    assert train(nn.Linear(6,3), cut(8, X, F.one_hot(Y, 3).float()), fm.MixUp(8.), loss=nn.BCEWithLogitsLoss(**{name: torch.rand(3)}))[1] is None

COUNT = 0
def counted(p, t):
    global COUNT
    COUNT += 1
    return ce(p, t)*(1+.01*COUNT)

def remembers(kind):
    seen,most = dict(n=0),[0]
    def _dict(p, t): seen['n'] += 1; return ce(p, t)
    def _list(p, t): most.append(len(most)); return ce(p, t)
    def _default(p, t, seen=[]): seen.append(1); return ce(p, t)
    return dict(dict=_dict, list=_list, default=_default, counted=counted, wrapped=fm.MixUpLoss(counted), partial=partial(counted),
        object=Counts(), method=Counts().loss, kept=Holds(counted), in_class=InClass(), second=partial(Holds(partial(counted))), of_module=uses_counts)[kind]

class Counts:
    "Counts in the module"
    def __call__(self, p, t): return counted(p, t)
    def loss(self, p, t): return counted(p, t)

COUNTS = Counts()
def uses_counts(p, t): return COUNTS(p, t)

class Holds:
    def __init__(self, f): self.f = f
    def __call__(self, p, t): return self.f(p, t)

class InClass:
    n = 0
    def __call__(self, p, t):
        InClass.n += 1
        return ce(p, t)*(1+.01*InClass.n)

@pytest.mark.parametrize('kind', ('dict','list','default','counted','wrapped','partial','object','method','kept','in_class','second','of_module'))
def test_a_state_of_a_loss_is_announced_wherever_it_is(kind):
    f = remembers(kind)
    assert sum('changes a state of its own' in o for o in train(Net(), BATCHES, fm.MixUp(8.), loss=f)[2])==1


# Callbacks and loops that do part of a mixer's work

class More(Callback):
    order = 50
    def __init__(self, made): self.made = made
    def after_pred(self): self.learn.yb = self.made(self.yb)

@pytest.mark.parametrize('made', (lambda yb: (*yb,torch.rand(8)), lambda yb: ()))
def test_targets_that_come_or_go_behind_the_mixer_are_refused(made):
    seen,error,*_ = train(Net(), BATCHES, fm.MixUp(8.), More(made), loss=lambda p,*t: ce(p, t[0]))
    assert not seen and 'behind the mixer' in error

def test_a_learner_whose_loop_has_no_event_for_the_loss_is_told():
    from fastai.basics import Learner
    class Own(Learner):
        def _do_one_batch(self):
            self.pred = self.model(*self.xb)
            self.loss_grad = self.loss_func(self.pred, *self.yb)
            self.loss = self.loss_grad.clone()
    log = watch(Net(), BATCHES, ce)
    learn = Own(log.learn.dls, Net(), loss_func=ce).mixup(8.)
    with warnings.catch_warnings(record=True) as warned, learn.no_bar(), learn.no_logging():
        warnings.simplefilter('always')
        learn.fit(1, 0.)
    assert sum("no 'after_pred' event" in o for o in told(warned))==1

def test_a_loop_of_ones_own_hears_of_doubtful_targets():
    with warnings.catch_warnings(record=True) as warned, fm.PlainLoop(fm.MixUp(8.), Net(), nn.BCEWithLogitsLoss()) as loop:
        warnings.simplefilter('always')
        b = loop(X[:8], torch.randint(-1, 2, (8,3)).float())
        b.loss(b.predict())
    assert any('-1' in o for o in told(warned))

def test_one_hot_targets_with_class_weights_are_announced():
    w = torch.tensor([.2,1.,3.])
    for stack_y,is_said in ((False,True),(None,False)):
        said = train(Net(), BATCHES, fm.MixUp(8., stack_y=stack_y), loss=nn.CrossEntropyLoss(weight=w))[2]
        assert any('divides by the number of samples' in o for o in said)==is_said


# Where the batch lies

class Steps(nn.Module):
    "Takes time first"
    def __init__(self):
        super().__init__()
        self.r,self.l = nn.GRU(1, 6),nn.Linear(6,3)
    def forward(self, x): return self.l(self.r(x.flatten(2).mean(-1, keepdim=True) if x.ndim>2 else x[...,None])[0][-1])

@pytest.mark.parametrize('shape', ((8,8),(8,8,4,5)))
def test_time_first_is_noticed_where_it_is_as_long_as_the_batch(shape):
    error,said = train(Steps(), [(torch.randn(shape),Y[:8])]*3, fm.MixUp(8.))[1:3]
    assert error is not None or any('follows the number of rows' in o for o in said)

class Views(Net):
    "Two views of each sample, one behind the other in one batch"
    def forward(self, a, b): return super().forward(torch.cat([a,b]))

@pytest.mark.parametrize('make', (lambda: fm.MixUp(8.), lambda: manifold(layers='b'), lambda: fm.ManifoldMixUp(8.), lambda: fm.OutputMixUp(8.)))
def test_views_in_one_batch_are_mixed_with_their_own_partners(make):
    net = Views()
    seen,error,*_ = train(net, cut(8, X, X+1, Y), make(), loss=lambda p,t: ce(p, t.repeat(2)), n_inp=2)
    assert error is None and len(seen)==8
    for b in seen:
        if not b.mixed: continue
        with torch.no_grad(): want = torch.cat([lerp(b, Net.forward(net, o)) for o in b.x])
        torch.testing.assert_close(b.pred, want, rtol=1e-4, atol=1e-4)

def test_an_index_that_the_model_ignores_is_left_alone():
    class Ignores(nn.Module):
        def __init__(self):
            super().__init__()
            self.c,self.h = nn.Conv2d(1, 4, 3),nn.Linear(4,3)
        def forward(self, x, i): return self.h(self.c(x).mean((2,3)))
    for mixer in (fm.MixUp(8.), fm.CutMix()):
        seen,error,*_ = train(Ignores(), cut(8, torch.randn(64,1,8,8), torch.arange(64), Y), mixer, n_inp=2)
        assert error is None and len(seen)==8

@pytest.mark.parametrize('seed', range(6))
def test_a_skip_drawn_from_a_generator_of_the_models_own_is_found(seed):
    class Skips(Net):
        def __init__(self):
            super().__init__()
            self.rng = random.Random(seed)
        def forward(self, x):
            z = self.b(self.a(x))
            return self.h(z+x if self.rng.random()<.3 else z)
    assert train(Skips(), BATCHES, manifold(layers='b'))[1] is not None

CHANCES = dict(torch=lambda: torch.rand(()).item(), one=lambda: torch.rand(1).item(), python=random.random, numpy=np.random.rand,
    randint=lambda: torch.randint(3, ()).item()/3+.01, choice=lambda: random.choice([.1,.5,.9]), randrange=lambda: random.randrange(5)/5+.01)
GATES = dict(bernoulli=lambda: torch.bernoulli(torch.full((3,), .5))[1]==0, bernoulli_=lambda: torch.empty(4).bernoulli_(.5)[2]==0,
    distribution=lambda: torch.distributions.Bernoulli(torch.full((4,), .5)).sample()[1]==1, vector=lambda: 1/3<torch.rand(6)[2]<2/3,
    matrix=lambda: .3<torch.rand(3,2)[2,1]<.7, two=lambda: torch.rand(())<.5<torch.rand(()), python=lambda: random.random()<.5<random.random(),
    order=lambda: torch.randperm(4)[0]==0, shuffled=lambda: random.sample(range(4), 4)[0]==0, numpy=lambda: np.random.permutation(4)[0]==0,
    gumbel=lambda: F.gumbel_softmax(torch.zeros(3), hard=True).argmax()==1, poisson=lambda: torch.poisson(torch.tensor(1.))==0,
    binomial=lambda: torch.binomial(torch.tensor(1.), torch.tensor(.5))==0, categorical=lambda: torch.distributions.Categorical(torch.ones(4)).sample()==2)
GATES |= {f'middle of {k}':lambda f=f: 1/3<f()<2/3 for k,f in CHANCES.items()}
@pytest.mark.parametrize('how', GATES)
def test_a_skip_that_opens_by_any_draw_is_found(how):
    class Gate(Net):
        def forward(self, x):
            z = self.b(self.a(x))
            return self.h(z+x if GATES[how]() else z)
    assert train(Gate(), BATCHES, manifold(layers='b'))[1] is not None
    assert train(Gate(), BATCHES, manifold(layers='h'))[1] is None


# What OutputMixUp takes

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(30,3)
    def forward(self, s): return self.e(torch.tensor([len(o) for o in s]))

@pytest.mark.parametrize('loss', (ce, lambda p,t: ce(p, t)))
def test_outputs_of_strings_are_mixed(loss):
    batches = [(['a'*random.randint(1, 20) for _ in range(8)],y) for _,y in BATCHES]
    net = Words()
    seen,error,*_ = train(net, batches, fm.OutputMixUp(8.), loss=loss)
    assert error is None and len(seen)==8
    for b in seen: torch.testing.assert_close(b.pred, lerp(b, net(*b.x)))

def test_outputs_may_be_taken_apart_by_a_callback():
    class Pair(Net):
        def forward(self, x): return super().forward(x),x
    class First(Callback):
        def after_pred(self): self.learn.pred = self.pred[0]
    net = Net()
    seen,error,*_ = train(Pair(), BATCHES, fm.OutputMixUp(8.), First(), loss=lambda p,t: ce(p, t))
    assert error is None
    for b in seen: torch.testing.assert_close(b.pred, lerp(b, net(b.x[0])))


# What a model may hold

@dataclass(frozen=True, slots=True)
class Config: k:int = 2

TICKS,DRAWS = defaultdict(int),torch.Generator()
class Odd(Net):
    "Holds what can't be set, counts in a defaultdict, draws from a generator of its module, and has a scripted layer"
    def __init__(self):
        super().__init__()
        self.config,self.b = Config(),torch.jit.script(self.b)
    @property
    def scale(self):
        TICKS['n'] += 1
        return 1.+.01*TICKS['n']
    def forward(self, x): return super().forward(x*self.scale+.01*torch.randn(x.shape, generator=DRAWS))

def test_a_fit_without_mixing_is_the_same_to_the_last_bit():
    res = []
    for mixer in (fm.ManifoldMixUp(0., layers='a', **HIDDEN, generator=torch.Generator()),fm.MixUp(p=0., generator=torch.Generator())):
        TICKS.clear()
        DRAWS.manual_seed(0)
        net = Odd()
        _,error,*_ = train(net, BATCHES, mixer, lr=.1, plain=Net(), loss=nn.CrossEntropyLoss(weight=torch.tensor([.2,1.,3.])))
        assert error is None
        res.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*res)


@cache
def projection(n): return torch.randn(n, n)

class Projected(nn.Module):
    "Makes a random projection when it is needed for the first time"
    def __init__(self):
        super().__init__()
        self.e,self.h = nn.Embedding(20,6),nn.Linear(6,3)
    def forward(self, x): return self.h(self.e(x).mean(1)@projection(6))

class ProjectedByMethod(Projected):
    @lru_cache
    def proj(self): return torch.randn(6,6)
    def forward(self, x): return self.h(self.e(x).mean(1)@self.proj())

@pytest.mark.parametrize('make', (Projected,ProjectedByMethod))
def test_what_is_cached_in_a_trial_does_not_stay(make):
    res = []
    for mixer in ([],[fm.MixUp(0., generator=torch.Generator())]):
        projection.cache_clear()
        ProjectedByMethod.proj.cache_clear()
        torch.manual_seed(0)
        net = make()
        torch.manual_seed(1)
        _,error,*_ = train(net, [(FULL,Y[:8])]*3, *(mixer or [Callback()]), lr=.1)
        assert error is None
        res.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*res)

class Ordered(Net):
    "Keeps features by name, and the newest of what it computed"
    def __init__(self, lazy):
        super().__init__()
        self.feats,self.recent,self.lazy,self.seen,self.ready = OrderedDict(),OrderedDict(),lazy,0,False
    def note(self, m, args, out): self.feats[m.out_features+len(self.feats)] = out
    def forward(self, x):
        if self.lazy and not self.ready: # as Transformers does in its first pass
            for m in (self.a,self.b): m.register_forward_hook(self.note)
            self.ready = True
        self.feats.clear()
        a = self.a(x)
        b = self.b(a)
        if not self.lazy: self.feats['a'],self.feats['b'] = a,b
        for k in (len(self.recent)%3,0,1,self.seen%4):
            self.recent[k] = x.detach().mean()
            self.recent.move_to_end(k)
            while len(self.recent)>2: self.recent.popitem(last=False)
        self.seen += 1
        return self.h(list(self.feats.values())[-1])

@pytest.mark.parametrize('lazy', [False,True])
def test_ordered_dicts_stay_in_order(lazy):
    net = Ordered(lazy)
    rows,error,*_ = train(net, BATCHES, manifold(layers='a'))
    assert error is None and len(rows)==len(BATCHES)
    plain,kept = (train(copy.deepcopy(Ordered(lazy)), BATCHES, m)[3].model for m in (manifold(layers='a', p=0.),fm.ManifoldMixUp(0., **HIDDEN, layers='a')))
    for a,b in zip(plain.parameters(), kept.parameters()): assert torch.equal(a, b)
    for net in (plain,kept): assert list(net.recent)==list(dict(net.recent)) and len(net.recent)==2
    assert list(plain.recent.items())==list(kept.recent.items()) and len(kept.feats)==2
    kept(X[:8])


# Errors, and lambdas of one

def test_an_error_before_the_loss_is_no_loop_without_events():
    class Stops(Net):
        def forward(self, x): raise RuntimeError('stops')
    _,error,said,_ = train(Stops(), BATCHES, fm.MixUp(8.))
    assert 'stops' in error and not any('after_pred' in o for o in said)

class Packed(OwnMask):
    "Stops unless longer rows come first, as packing does"
    def forward(self, x):
        n = (x!=0).sum(1)
        if (n[1:]>n[:-1]).any(): raise ValueError('rows that are not sorted by length')
        return super().forward(x)

def test_outputs_of_a_model_whose_rows_have_to_be_sorted_are_mixed():
    net = Packed()
    seen,error,*_ = train(net, [(FULL,Y[:8])]*3, fm.OutputMixUp(8.), loss=lambda p,t: ce(p, t))
    assert error is None and len(seen)==3
    for b in seen: torch.testing.assert_close(b.pred, lerp(b, net(FULL)))

def test_lambdas_of_one_are_checked_as_others_are():
    p,y = torch.randn(8,3),torch.randint(3, (8,))
    with pytest.raises(ValueError): fm.MixUpLoss(ce)(p, y, yb1=y.flip(0), lam=torch.ones(5))
    with pytest.raises(ValueError): fm.MixUpLoss(nn.MSELoss())(torch.randn(8,1), torch.randn(8), yb1=torch.randn(8), lam=torch.ones(8))
    with pytest.raises(ValueError, match='a weight for each class'):
        fm.MixUpLoss(nn.BCEWithLogitsLoss(weight=torch.rand(8,1)))(torch.randn(8,1), torch.rand(8,1), yb1=torch.rand(8,1), lam=torch.ones(8))
    assert torch.equal(fm.MixUpLoss(ce)(p, y, yb1=y.flip(0), lam=torch.ones(8)), ce(p, y))

# Rounding differs from machine to machine

class Rounded(nn.Module):
    "What `m` predicts, with rounding errors that differ from row to row, as matrix products have them on some machines"
    def __init__(self, m):
        super().__init__()
        self.m = m
    def forward(self, x):
        p = self.m(x)
        return p*(1+2e-7*(torch.arange(len(p))*5%7-3.)[:,None])

class OfBatch(nn.Module):
    "Predicts the same for all samples"
    def __init__(self):
        super().__init__()
        self.e,self.h = nn.Embedding(20,8),nn.Linear(8,3)
    def forward(self, x): return self.h(self.e(x).mean((0,1))).expand(len(x), 3)

def test_predictions_that_differ_by_rounding_alone_are_told_to_be_the_same():
    for model in (OfBatch(),Rounded(OfBatch())):
        _,error,said,_ = train(model, [(FULL,Y[:8])]*2, fm.MixUp(8.))
        assert error or any('have the same predictions' in o for o in said)

class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a,self.b = nn.Linear(6,3),nn.Linear(3,3)
    def forward(self, x):
        h = self.a(x)
        return h+self.b(h.relu())

def test_rounding_of_equal_rows_is_no_way_round_a_place():
    for model in (Skip(),Rounded(Skip())):
        assert 'as a skip connection does' in train(model, BATCHES, manifold(layers='*b'))[1]

class Waves(nn.Module):
    "Complex outputs, in whose imaginary part the input goes round the layer `b`"
    def __init__(self):
        super().__init__()
        self.a,self.b = nn.Linear(6,6),nn.Linear(6,3)
    def forward(self, x):
        h = self.a(x)
        return torch.complex(self.b(h), h[:,:3])

def wave_loss(p, y): return F.cross_entropy(p.real+p.imag, y)

def test_imaginary_parts_have_to_follow_too():
    assert 'goes round' in train(Waves(), BATCHES, manifold(layers='b'), loss=wave_loss)[1]
    rows,error,_,_ = train(Waves(), BATCHES, manifold(layers='a'), loss=wave_loss)
    assert rows and not error

# What a model is given by another way than its inputs

class Conditioned(nn.Module):
    "Adds what a callback has put into `where` to the hidden layer"
    def __init__(self, where='cond'):
        super().__init__()
        self.a,self.h,self.where,self.film = nn.Linear(6,6),nn.Linear(6,3),where,nn.Identity()
        self.register_buffer('buf', torch.zeros(8,6))
        self.box,self.ctx = dict(cond=None),Holds(None)
    def put(self, c):
        if self.where=='cond': self.cond = c
        elif self.where=='film': self.film.cond = c
        elif self.where=='buffer': self.buf = c
        elif self.where=='in place': self.buf.copy_(c)
        elif self.where=='object': self.ctx.f = c
        else: self.box['cond'] = c
    def get(self): return dict(cond=lambda: self.cond, film=lambda: self.film.cond, box=lambda: self.box['cond'], object=lambda: self.ctx.f).get(self.where, lambda: self.buf)()
    def forward(self, x): return self.h(self.a(x)+self.get())

class Condition(Callback):
    def __init__(self, order): self.order = order
    def before_batch(self): self.model.put(self.x[:,:6].roll(1, 1)*1.5)

HELD = 'set between two forward passes'

@pytest.mark.parametrize('where', ['cond','film','buffer','in place','box','object'])
@pytest.mark.parametrize('order', [-20,90])
def test_conditions_that_a_callback_sets_on_the_model_are_announced(where, order):
    rows,error,said,_ = train(Conditioned(where), BATCHES, fm.MixUp(8.), Condition(order))
    assert len(rows)==len(BATCHES) and not error
    assert sum(HELD in o for o in said)==1

def test_plain_loops_hear_of_conditions_too():
    net = Conditioned()
    with warnings.catch_warnings(record=True) as said, fm.PlainLoop(fm.MixUp(8.), net, ce) as loop:
        warnings.simplefilter('always')
        for x,y in BATCHES:
            net.cond = x*1.5
            b = loop(x, y)
            b.loss(b.predict()).backward()
    assert sum(HELD in o for o in told(said))==1
    assert not any(m._forward_pre_hooks for m in net.modules())

class Rich(nn.Module):
    "Keeps what it computes, a state and running statistics with as many entries as samples"
    def __init__(self):
        super().__init__()
        self.a,self.bn,self.h = nn.Linear(6,8),nn.BatchNorm1d(8),nn.Linear(8,3)
        self.feat,self.log,self.table = None,[],torch.randn(8,8)
    def forward(self, x):
        self.feat = self.bn(self.a(x))
        self.log = [self.feat.detach(),dict(mean=self.feat.mean(1))]
        return self.h(self.feat@self.table)

@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.ManifoldMixUp(8.),fm.OutputMixUp(8.)], ids=str)
def test_what_a_model_keeps_by_itself_is_no_condition(mixer):
    _,error,said,learn = train(Rich(), BATCHES, mixer, lr=0.1)
    assert not error and not any(HELD in o for o in said)
    assert not any(m._forward_pre_hooks for m in learn.model.modules())

@pytest.mark.parametrize('mixer', [fm.MixUp(8., p=0.5),fm.MixChoice(fm.MixUp(8.), fm.MixUp(4.), None)], ids=str)
def test_passes_that_are_not_mixed_set_no_condition(mixer):
    "Plain batches and validation come between two mixed ones"
    batches = [(X[:n],Y[:n]) for n in (8,5,8,5)]
    for seed in range(8):
        torch.manual_seed(seed)
        _,error,said,learn = train(Rich(), batches, mixer, epochs=3)
        assert not error and not any(HELD in o for o in said)
        net = Rich()
        with warnings.catch_warnings(record=True) as loop_said, fm.PlainLoop(mixer, net, ce) as loop:
            for x,y in batches:
                b = loop(x, y)
                b.loss(b.predict()).backward()
                with torch.no_grad(): net(X[:8])
        assert not any(HELD in o for o in told(loop_said))
        assert not any(m._forward_pre_hooks or m._forward_hooks for o in (net,learn.model) for m in o.modules())

@pytest.mark.parametrize('mixer', [fm.MixUp(8., p=0.5),fm.MixChoice(fm.MixUp(8.), fm.MixUp(4.))], ids=str)
def test_conditions_are_seen_in_later_batches_too(mixer):
    torch.manual_seed(0)
    assert sum(HELD in o for o in train(Conditioned(), BATCHES, mixer, Condition(90))[2])==1

@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.ManifoldMixUp(8.)], ids=str)
def test_a_model_may_know_its_learner(mixer):
    class Knows(Callback):
        order = 90
        def before_batch(self): self.learn.model.owner = [self.learn,self]
    class Own(Net):
        def __deepcopy__(self, memo): return self
    _,error,said,_ = train(Own(), BATCHES, mixer, Knows())
    assert not error and not any(HELD in o for o in said)

@pytest.mark.parametrize('rnn', (nn.LSTM,nn.GRU,nn.RNN))
def test_parameters_that_an_rnn_lists_are_no_condition(rnn):
    "Nor if they have as many rows as the batch"
    net = rnn(4, 8)
    n = len(net.weight_hh_l0)
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.r,self.h,self.own = rnn(4, 8, batch_first=True),nn.Linear(8,3),[]
            self.own += [*self.r.parameters()]
        def forward(self, x): return self.h(self.r(x)[0][:,-1])
    _,error,said,_ = train(Last(), cut(n, torch.randn(4*n,5,4), torch.randint(0, 3, (4*n,))), fm.MixUp(8.), lr=.1)
    assert not error and not any(HELD in o for o in said)

class Carries(nn.Module):
    "Floats whose hidden state passes from one batch to the next"
    def __init__(self, kept='tensor'):
        super().__init__()
        self.rnn,self.h,self.kept,self.s = nn.GRU(4, 8, batch_first=True),nn.Linear(8,3),kept,None
    def forward(self, x):
        kept = None if self.s is None else dict(list=lambda: self.s[0], array=lambda: torch.tensor(self.s), tensor=lambda: self.s, heads=lambda: self.s.view(1, -1, 8))[self.kept]()
        o,s = self.rnn(x, kept)
        self.s = dict(list=[s.detach()], array=s.detach().numpy(), tensor=s.detach(), heads=s.detach().view(-1, 2))[self.kept]
        return self.h(o[:,-1])

STEPS = cut(8, torch.randn(64,5,4), Y)
class OfBatches(nn.Module):
    "A state of whole batches, which no sample finds its own part of"
    def __init__(self, kept):
        super().__init__()
        self.a = nn.utils.spectral_norm(nn.Linear(4,8)) if kept=='norm' else nn.Linear(4,8)
        self.h,self.kept,self.mean,self.n = nn.Linear(8,3),kept,torch.zeros(8),0
    def forward(self, x):
        h = self.a(x.mean(1))
        if self.kept=='mean':
            h = h-self.mean
            self.mean = .9*self.mean+.1*h.detach().mean(0)
        if self.kept=='count':
            self.n += 1
            h = h/self.n
        return self.h(h)

@pytest.mark.parametrize('kept', ['norm','mean','count'])
@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.ManifoldMixUp(8.)], ids=str)
def test_a_state_of_batches_is_not_announced(kept, mixer):
    rows,error,said,_ = train(OfBatches(kept), STEPS, mixer)
    assert len(rows)==8 and not error and not any('keeps a state' in o for o in said)

@pytest.mark.parametrize('kept', ['tensor','list','array','heads'])
@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.CutMix(dims=1),fm.ManifoldMixUp(8.)], ids=str)
def test_a_state_of_float_inputs_is_announced(kept, mixer):
    rows,error,said,_ = train(Carries(kept), STEPS, mixer)
    assert len(rows)==8 and not error and sum('keeps a state' in o for o in said)==1
    net = Carries(kept)
    with warnings.catch_warnings(record=True) as said, fm.PlainLoop(mixer, net, ce) as loop:
        warnings.simplefilter('always')
        for x,y in STEPS:
            b = loop(x, y)
            b.loss(b.predict()).backward()
    assert sum('keeps a state' in o for o in told(said))==1

def test_a_scripted_model_trains():
    _,error,said,_ = train(torch.jit.script(Net()), BATCHES, fm.MixUp(8.))
    assert not error and not any(HELD in o for o in said)

class Copies(Callback):
    "Keeps a copy of the model, as moving averages do"
    order = 90
    def before_batch(self): self.copied = copy.deepcopy(self.model)

def test_copies_of_a_model_look_at_nothing():
    _,error,_,_ = train(Net(), BATCHES, fm.MixUp(8.), kept := Copies())
    assert not error
    kept.copied(X[:8])

# Inputs that are no samples

@pytest.mark.parametrize('mixer', [fm.MixUp,fm.ManifoldMixUp], ids=lambda o: o.__name__)
def test_a_table_with_as_many_rows_as_samples_is_announced(mixer):
    class ZeroShot(nn.Module):
        "Compares images with descriptions of the classes"
        def __init__(self):
            super().__init__()
            self.a,self.t = nn.Linear(6,5),nn.Linear(4,5)
        def forward(self, x, table): return self.a(x)@self.t(table).T
    table,x = torch.randn(8,4),torch.randn(64,6)
    def batches(change): return [(x[8*i:8*i+8],table+change*i,torch.randint(0, 8, (8,))) for i in range(4)]
    said = train(ZeroShot(), batches(0), mixer(8.), n_inp=2)[2]
    assert sum('is the same in two batches' in o for o in said)==1
    assert not any('is the same in two' in o for o in train(ZeroShot(), batches(0), mixer(8., inputs=0), n_inp=2)[2])
    assert not any('is the same in two' in o for o in train(ZeroShot(), batches(1), mixer(8.), n_inp=2)[2])
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(10,3)
        def forward(self, x, z): return self.a(torch.cat([x, z], 1))
    same = [(x[:8],table,Y[:8])]*3 # one batch, again and again
    assert not any('is the same in two' in o for o in train(Pair(), same, mixer(8.), n_inp=2)[2])


# Targets that were written into

class Writes(Callback):
    order = 90
    def before_batch(self): self.y[::2] = 1

@pytest.mark.parametrize('loss', [ce,nn.MSELoss()], ids=['pairs','interpolates'])
def test_targets_that_are_written_into_behind_the_mixer_are_announced(loss):
    batches = BATCHES if loss is ce else cut(8, X, torch.randn(64,3))
    _,error,said,_ = train(Net(), batches, fm.MixUp(8.), Writes(), loss=loss)
    assert not error and sum('changed targets after' in o for o in said)==1

def test_targets_made_in_inference_mode_train():
    with torch.inference_mode(): batches = [(x,y.clone()) for x,y in BATCHES]
    rows,error,_,_ = train(Net(), batches, fm.MixUp(8.))
    assert len(rows)==len(BATCHES) and not error

# Targets that compare samples

class Similar(nn.Module):
    "The similarity of each sample to each other one"
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6,4)
    def forward(self, x):
        h = self.a(x)
        return h@h.T

@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.MixUp(8., per_sample=False)], ids=str)
def test_targets_that_compare_samples_are_announced(mixer):
    same = [(x,(y[:,None]==y).float()) for x,y in BATCHES]
    for batches,loss in (([(x,torch.arange(8)) for x,_ in BATCHES],ce), (same,nn.BCEWithLogitsLoss())):
        assert sum('compares the samples' in o for o in train(Similar(), batches, mixer, loss=loss)[2])==1
    assert not any('compares' in o for o in train(nn.Linear(6,8), [(x,torch.randperm(8)) for x,_ in BATCHES], mixer)[2])

# Layout in memory, loops with lists, keys in advice, mixers in several Learners, partners of any integers

class Strides(Callback):
    order,run_valid = 10**6,False
    def after_pred(self): self.learn.seen = [x.stride() for x in self.xb]

@pytest.mark.parametrize('make', [fm.MixUp,fm.CutMix,fm.FMix,fm.ResizeMix])
def test_every_mixer_keeps_the_layout_of_images(make):
    x = torch.randn(8,6,5,3).permute(0,3,2,1) # columns first, channels last: no format that PyTorch has a name for
    learn = train(nn.Sequential(nn.Flatten(), nn.Linear(90,3)), [(x,Y[:8])], make(), Strides())[3]
    assert learn.mixer.lam is not None and learn.seen==[x.stride()]

def test_columns_in_memory_train_to_the_last_bit_without_mixing():
    "fastai's continuous columns of a table lie in memory one after another"
    ends = []
    for cbs in ([],[fm.MixUp(0.)]):
        net = nn.Sequential(nn.BatchNorm1d(6), Net())
        batches = [(x.t().contiguous().t(),y) for x,y in BATCHES]
        log = watch(net, batches, ce, *cbs, lr=.1, epochs=2)
        assert log.error is None
        ends.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.equal(p, q) for p,q in zip(*ends))

class Pair(nn.Module):
    "Two inputs, one by one or as one list"
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(12,3)
    def forward(self, *xs): return self.l(torch.cat(xs[0] if isinstance(xs[0], list) else xs, 1))

@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.ManifoldMixUp(8., layers='l')], ids=str)
def test_a_loop_asks_what_a_list_is(mixer):
    x,y = X[:8],Y[:8]
    def two(p, *ts): return ce(p, ts[0])+ce(p, ts[-1])
    with warnings.catch_warnings(), fm.PlainLoop(mixer, Pair(), two) as loop:
        warnings.simplefilter('ignore')
        with pytest.raises(TypeError, match=r'xb as a tuple.*list of 2: write tuple\(xb\) if the model.*\(xb,\) if it takes the list as one'): loop([x,x], y)
        with pytest.raises(TypeError, match=r'yb as a tuple.*list of 3: write tuple\(yb\) if the loss.*\(yb,\)'): loop(x, [y,y,y])
        for xb in ((x,x),([x,x],)):
            b = loop(xb, (y,y))
            assert b.loss(b.predict()).isfinite()

class OfDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6,3)
    def forward(self, b): return self.l(b['image'])

@pytest.mark.parametrize('other', [list('abcdefgh'),[1.]*8,torch.zeros(3,6),X[:8].numpy(),torch.zeros(8,6, dtype=torch.uint8)], ids=['text','list','rows','array','bytes'])
@pytest.mark.parametrize('nested', (False,True))
def test_advice_names_a_key_that_can_be_mixed(other, nested):
    "What the message says to write is right, word for word"
    given = dict(more=dict(name=other), image=X[:8]) if nested else dict(name=other, image=X[:8])
    error = train(OfDict(), [(given,Y[:8])], fm.MixUp(8.))[1]
    assert "MixUp(inputs='image')" in error
    seen,error,*_ = train(OfDict(), [(given,Y[:8])], fm.MixUp(8., inputs='image'))
    assert error is None and seen[0].mixed

def test_advice_names_nothing_that_can_not_be_mixed():
    "A key that also chooses what can't be mixed is no way out, and without one none is named"
    given = dict(image=X[:8], more=dict(image=list('abcdefgh')))
    assert 'inputs=' not in train(OfDict(), [(given,Y[:8])], fm.MixUp(8.))[1]
    class Second(Net):
        def forward(self, names, x): return super().forward(x)
    assert 'MixUp(inputs=1)' in train(Second(), [(list('abcdefgh'),X[:8],Y[:8])], fm.MixUp(8.), n_inp=2)[1]

class StackedViews(Callback):
    "Stacks two views of each sample, and averages their predictions"
    run_valid = False
    def before_batch(self): self.learn.xb = (torch.cat([self.x,self.x.flip(-1)]),)
    def after_pred(self): self.learn.pred = self.pred[:8]+self.pred[8:]

class Repeated(StackedViews):
    def before_batch(self):
        super().before_batch()
        self.learn.yb = (self.y.repeat(2),)
    def after_pred(self): pass

def test_views_that_are_stacked_before_the_mix_are_told_apart():
    error = train(Net(), BATCHES, fm.MixUp(8.), StackedViews())[1]
    assert '8 samples in the first dimension of every input, as many as targets, but input 0 is torch.float32 of shape (16, 6)' in error
    assert 'stacks 2 views of each sample, give it an `order` above MixUp.order' in error and 'repeat the targets' in error and 'inputs=' not in error
    later,net = StackedViews(),Net()
    later.order = fm.MixUp.order+1
    seen,error,*_ = train(net, BATCHES, fm.MixUp(8.), later)
    assert error is None
    for b in seen:
        x = lerp(b, b.x[0])
        with torch.no_grad(): assert b.mixed and torch.allclose(b.pred, net(x)+net(x.flip(-1)), atol=1e-4)
    learn = quiet_fit(learner(net, BATCHES, ce, fm.MixUp(8.), Repeated()))
    assert len(learn.mixer.perm)==len(learn.mixer.lam)==16

def test_one_mixer_in_one_learner_after_another():
    "As in cross validation: each fold's Learner trains before the next one is made, and predicts later"
    cbs,folds = [fm.MixUp(8.)],[]
    for _ in range(3):
        folds.append(learner(Net(), BATCHES, ce, *cbs))
        quiet_fit(folds[-1])
        assert folds[-1].mixer.lam is not None
    for o in folds:
        with o.no_bar(),o.no_logging(): assert len(o.get_preds(dl=o.dls.valid)[0])==8 and len(o.validate())==1
    mixer = fm.MixUp(8.)
    for o in (*folds,*folds): # given for one fit only
        o.remove_cbs(cbs)
        quiet_fit(o, cbs=[mixer])
        assert mixer.lam is not None

class OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.e,self.h = nn.Embedding(9,4),nn.Linear(4,3)
    def forward(self, t): return self.h(self.e(t).mean(1)).square().mean()

def test_a_model_that_returns_its_loss_is_told_to_predict():
    error = train(OwnLoss(), cut(8, torch.randint(9, (16,5)), Y[:16]), fm.MixUp(8.), loss=lambda l,y: l)[1]
    assert 'returns its own loss has to return predictions instead, and loss_func computes the loss' in error

@pytest.mark.parametrize('dtype', [torch.uint8,torch.int8,torch.int16,torch.int32,torch.int64])
@pytest.mark.parametrize('make', [fm.MixUp,fm.CutMix,fm.FMix,fm.ResizeMix])
def test_partners_of_any_integers(make, dtype):
    images,net = torch.randn(8,2,4,4),nn.Sequential(nn.Flatten(), nn.Linear(32,3))
    perm = torch.tensor([3,2,1,0,7,6,5,4])
    seen,error,*_ = train(net, [(images,Y[:8])], make(pair=lambda yb,g: perm.to(dtype)))
    assert error is None and seen[0].perm.tolist()==perm.tolist()
    b, = seen
    if make is fm.MixUp: assert torch.allclose(b.pred, lerp(b, net(images)), atol=1e-4)
    own,other = each(b.pred, Y[:8]),each(b.pred, Y[:8][perm])
    assert torch.allclose(b.loss, (b.lam*own+(1-b.lam)*other).mean(), atol=1e-5)

class Groups(nn.Module):
    "Samples in groups of four, and no others"
    def __init__(self):
        super().__init__()
        self.a,self.h = nn.Linear(6,6),nn.Linear(6,3)
    def forward(self, x):
        if len(x)%4: raise RuntimeError('groups of 4')
        return self.h(self.a(x.float()))

@pytest.mark.parametrize('mixer,x', [(fm.MixUp(8.),X.round().long()),(fm.ManifoldMixUp(8.),X)], ids=['MixUp','ManifoldMixUp'])
def test_what_runs_on_whole_groups_alone_is_told_what_is_left(mixer, x):
    error = train(Groups(), cut(8, x, Y), mixer)[1]
    assert 'groups of 4' in error and 'at inputs that are quantities, by MixUp or CutMix, or in its own forward, with MixUp(stack_x=True)' in error
    seen,error,*_ = train(Groups(), BATCHES, fm.MixUp(8.)) # as it says
    assert error is None and all(b.mixed for b in seen)
# What a padding mask hides

class Hidden(nn.Module):
    "Features, whatever they are filled with where the mask hides them; `kind` says how it does"
    def __init__(self, kind='ones'):
        super().__init__()
        torch.manual_seed(0)
        self.a,self.h,self.kind = nn.Linear(4,8),nn.Linear(8,3),kind
    def forward(self, x, m):
        m = {'ones':m==1, 'inverted':m==0, 'added':m==0, 'channels':m==1}[self.kind][...,None]
        if self.kind=='channels': x = x.transpose(1,2)
        z = self.a(x).relu().masked_fill(~m, 0)
        return self.h(z.sum(1)/m.sum(1))

def filled(kind, fill, low=-np.inf):
    x = torch.where(MASK[...,None], SEQ, fill)
    m = {'ones':MASK, 'inverted':(~MASK).float(), 'added':torch.zeros(8,10).masked_fill(~MASK, low), 'channels':MASK.long()}[kind]
    return x.transpose(1,2).contiguous() if kind=='channels' else x,m

@pytest.mark.parametrize('fill', (0.,-1.5,-999.,np.nan))
@pytest.mark.parametrize('kind', ('ones','inverted','added','channels'))
def test_what_a_mask_hides_counts_as_zero_in_a_mixture(kind, fill):
    net = Hidden(kind)
    def right(b):
        x,m = b.x
        x = torch.where(m[:,None]==1 if kind=='channels' else m[...,None]==(kind=='ones'), x, 0)
        return net(lerp(b, x), {'ones':torch.logical_or, 'inverted':torch.minimum}.get(kind, torch.maximum)(m, m[b.perm]))
    batch = (*filled(kind, fill),Y[:8])
    for mixer in (fm.MixUp(8.),fm.ManifoldMixUp(8.)):
        seen,error,said,_ = train(net, [batch,[t.roll(1, 0) for t in batch]], mixer, n_inp=2)
        assert len(seen)==2 and error is None and all(bool(b.pred.isfinite().all()) for b in seen)
        if isinstance(mixer, fm.ManifoldMixUp): continue
        assert not said
        for b in seen: torch.testing.assert_close(b.pred, right(b))

def test_every_input_that_a_mask_hides_counts_as_zero_there():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a,self.b = Hidden(),Hidden()
        def forward(self, x, z, m): return self.a(x, m)+self.b(z, m)
    net,m = Two(),MASK
    xs = [torch.where(m[...,None], torch.randn(8,10,4), fill) for fill in (7.,-999.)]
    clean = [x*m[...,None] for x in xs]
    def right(b): return [net(*[lerp(b, x) for x in clean], m | m[b.perm])]
    assert follows(net, [(*xs,m,Y[:8])], fm.MixUp(8.), right, n_inp=3) is None

@pytest.mark.parametrize('dims', (1,2))
def test_what_a_mask_hides_is_not_seen_where_it_is_pasted(dims):
    fits = [train(Hidden(), [(*filled('ones', fill),Y[:8])], fm.CutMix(dims=dims, generator=torch.Generator().manual_seed(0)), n_inp=2) for fill in (0.,-999.)]
    (a,),(b,) = (seen for seen,*_ in fits)
    assert b.mixed and torch.equal(a.lam, b.lam)
    torch.testing.assert_close(a.pred, b.pred)

def test_what_a_pasted_mask_hides_of_an_interpolated_input_counts_as_zero():
    class Beside(Hidden):
        def forward(self, x, m, z): return super().forward(x, m)+(z.masked_fill(m==0, 0)).sum(1, keepdim=True)
    z = torch.randn(8,10)
    fits = [train(Beside(), [(*filled('ones', fill),torch.where(MASK, z, fill),Y[:8])], fm.CutMix(dims=1, generator=torch.Generator().manual_seed(0)), n_inp=3)
        for fill in (0.,-999.)]
    (a,),(b,) = (seen for seen,*_ in fits)
    assert b.mixed and torch.equal(a.lam, b.lam)
    torch.testing.assert_close(a.pred, b.pred)

def test_samples_without_a_share_of_a_partner_keep_what_is_hidden():
    x,m = filled('ones', -999.)
    for mixer in (fm.MixUp(0.),fm.MixUp(.05)):
        b, = train(Hidden(), [(x,m,Y[:8])], mixer, n_inp=2)[0]
        assert torch.equal(b.given[0][b.lam==1], x[b.lam==1]) and bool((b.lam==1).any())

def test_a_mask_that_chooses_between_two_inputs_is_none():
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.Linear(4,3)
        def forward(self, x, z, m): return self.h(torch.where(m[...,None]>.5, x, z).mean(1))
    _,error,said,_ = train(Chooses(), [(SEQ,torch.randn(8,10,4),MASK.float(),Y[:8])], fm.MixUp(8.), n_inp=3)
    assert error or 'has two values' in ' '.join(said)

def test_floats_beside_a_mask_that_it_does_not_hide_are_watched_for_padding():
    class Beside(Hidden):
        def forward(self, x, m, z): return super().forward(x, m)+self.h(self.a(z).mean(1))
    late = torch.randn(8,12,4)
    late[:5,9:] = -3.
    assert any('as padding' in o for o in train(Beside(), [(*filled('ones', 0.),late,Y[:8])], fm.MixUp(8.), n_inp=3)[2])

# Predictions that hardly differ

class Narrow(nn.Module):
    "Layers with small weights behind a sum, to which a part `by` of the input comes round the layer `a`"
    def __init__(self, by):
        super().__init__()
        torch.manual_seed(0)
        self.a,self.c,self.by = nn.Linear(6,8),nn.Linear(6,8),by
        self.rest = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(8,8),nn.LayerNorm(8))], nn.Linear(8,3))
        for m in self.rest.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=.02)
                nn.init.zeros_(m.bias)
    def forward(self, x): return self.rest(self.a(x)+self.by*self.c(x))

def test_a_small_part_that_goes_round_a_layer_is_seen_behind_constant_biases():
    assert 'as a skip connection does' in (train(Narrow(.02), BATCHES, manifold(layers='a'))[1] or '')
    _,error,said,_ = train(Narrow(0.), BATCHES, manifold(layers='a'))
    assert error is None and not said

class Offset(nn.Module):
    "Predictions that are nearly one number"
    def __init__(self, size):
        super().__init__()
        self.e,self.h,self.size = nn.Embedding(20,8),nn.Linear(8,3),size
    def forward(self, x): return 1+self.size*self.h(self.e(x).mean(1))

def test_predictions_that_differ_by_little_more_than_rounding_are_announced():
    for size,announced in ((1e-4,True),(1e-2,False)):
        _,error,said,_ = train(Offset(size), [(FULL,Y[:8])]*2, fm.MixUp(8.))
        assert error is None and sum('little more than rounding' in o for o in said)==announced

# Models that take no rows but those of the batch

class Ends(nn.Module):
    "The mean of the tokens up to the 19, of which each row has to have one"
    def __init__(self):
        super().__init__()
        self.e,self.h = nn.Embedding(20,8),nn.Linear(8,3)
    def forward(self, x):
        if not bool(((x==19).sum(1)==1).all()): raise ValueError('one end in each row')
        m = ((x==19).cumsum(1).roll(1, 1).index_fill(1, torch.tensor(0), 0)==0).float()[...,None]
        return self.h((self.e(x)*m).sum(1)/m.sum(1))

def ended(n): return torch.where(torch.arange(10)<n[:,None]-1, FULL.clamp(max=18), torch.where(torch.arange(10)==n[:,None]-1, 19, 0))

def test_padding_that_could_not_be_tried_is_announced_and_ends_the_fit():
    net,full,ragged = Ends(),ended(torch.full((8,), 10)),ended(LENGTHS)
    def right(b): return [net.h(lerp(b, net.e(b.x[0]).mean(1)))]
    assert follows(net, [(full,Y[:8])]*2, fm.MixUp(8.), right) is None
    seen,error,said,_ = train(net, [(full,Y[:8]),(full,Y[:8]),(ragged,Y[:8])], fm.MixUp(8.))
    assert len(seen)==2 and 'without padding' in error and sum('could not be tried with padding (ValueError: one end' in o for o in said)==1

class Begins(nn.Module):
    "The mean of all steps, the first of which has to be `first`"
    def __init__(self, e, first):
        super().__init__()
        self.e,self.h,self.first = e,nn.Linear(8,3),first
    def forward(self, x):
        if not bool((x[:,0]==self.first).all()): raise ValueError('another begin')
        return self.h(self.e(x).mean(1))

@pytest.mark.parametrize('floats', (False,True))
def test_models_that_take_the_rows_of_the_batch_alone_are_mixed(floats):
    x = SEQ.clone() if floats else RAGGED.clone()
    x[:,0] = 3
    net = Begins(nn.Linear(4,8) if floats else nn.Embedding(20,8), 3)
    def right(b): return [net.h(lerp(b, net.e(b.x[0]).mean(1)))]
    mixer = manifold(layers='e') if floats else fm.MixUp(8.)
    assert follows(net, [(x,Y[:8]),(x.flip(0),Y[:8])], mixer, right) is None
    seen,_,said,_ = train(net, [(x,Y[:8]),(x.flip(0),Y[:8])], mixer)
    assert len(seen)==2 and not said

def test_padding_of_indices_is_tried_beside_floats_that_hold_nan():
    class Beside(Hidden):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(20,8)
        def forward(self, x, m, ids): return super().forward(x, m)+self.h(self.e(ids).mean(1))
    batches = [(*[o.roll(k, 0) for o in filled('ones', np.nan)],ids,Y[:8]) for k,ids in enumerate((FULL,RAGGED))]
    seen,error,said,_ = train(Beside(), batches, fm.MixUp(8.), n_inp=3)
    assert len(seen)==2 and error is None and not [o for o in said if 'NaN' not in o]

# Layers that run as often as the sample is long, or by chance

WRITTEN = io.StringIO() # which a trial does not put back
class Chunks(nn.Module):
    "The mean over parts of four steps, each of which is embedded by itself"
    def __init__(self):
        super().__init__()
        self.e,self.h = nn.Embedding(20,8),nn.Linear(8,3)
    def forward(self, x):
        WRITTEN.write(f'{len(x)} ')
        return self.h(torch.stack([self.e(c).mean(1) for c in x.split(4, 1)]).mean(0))

@pytest.mark.parametrize('mixer', (fm.MixUp(8.),manifold(layers='e')), ids=str)
def test_a_layer_that_runs_once_for_each_part_is_tried_for_each_length(mixer):
    net,passes = Chunks(),[]
    batches = [(torch.randint(20, (8,4*k)),Y[:8]) for k in (5,5,3,5,1,3,1,5)]
    class Count(Callback):
        order = 10**6
        def after_batch(self):
            passes.append(WRITTEN.getvalue().count('7 '))
            WRITTEN.truncate(WRITTEN.seek(0))
    def right(b): return [net.h(lerp(b, net.e(b.x[0]).mean(1)))]
    assert follows(net, batches, mixer, right, Count()) is None
    first = [passes[k] for k in (0,2,4)]
    assert all(first) and not any(passes[k] for k in (3,5,6,7))

def test_the_lengths_that_are_remembered_are_few():
    batches = [(torch.randint(20, (2,k)),Y[:2]) for k in (5,*range(6,75),5,74)]
    passes = []
    class Count(Callback):
        order = 10**6
        def after_batch(self):
            passes.append(WRITTEN.getvalue().count('7 '))
            WRITTEN.truncate(WRITTEN.seek(0))
    seen,error,*_ = train(Chunks(), batches, fm.MixUp(8.), Count())
    assert error is None and len(seen)==len(batches) and all(passes[2:71]) and not passes[71]

class Siamese(nn.Module):
    "Two texts, which pass the same embedding, and features beside them"
    def __init__(self):
        super().__init__()
        self.e,self.f,self.h = nn.Embedding(20,8),nn.Linear(6,8),nn.Linear(8,3)
    def sum(self, x, z, f): return self.e(x).mean(1)-self.e(z).mean(1)+self.f(f)
    def forward(self, *xs):
        WRITTEN.write(f'{len(xs[0])} ')
        return self.h(self.sum(*xs))

def test_a_layer_that_runs_twice_at_any_length_is_tried_once():
    net,passes = Siamese(),[]
    batches = [(torch.randint(20, (8,a)),torch.randint(20, (8,b)),X[:8],Y[:8]) for a,b in ((5,7),(4,7),(9,3),(2,2))]
    class Count(Callback):
        order = 10**6
        def after_batch(self):
            passes.append(WRITTEN.getvalue().count('7 '))
            WRITTEN.truncate(WRITTEN.seek(0))
    def right(b): return [net.h(lerp(b, net.sum(*b.x)))]
    assert follows(net, batches, fm.MixUp(8.), right, Count(), n_inp=3) is None
    assert len(passes)>=4 and passes[0] and not any(passes[2:4])

class Towers(nn.Module):
    "The sum of two towers, one of which `drops` leaves out"
    def __init__(self, drops):
        super().__init__()
        self.a,self.b,self.h,self.drops,self.late = nn.Embedding(20,8),nn.Embedding(20,8),nn.Linear(8,3),drops,False
    def parts(self, x, z): return [self.a(x).mean(1),self.b(z).mean(1)]
    def forward(self, x, z):
        out = torch.rand(()).item() if self.drops else 0.
        if self.late or out>.7: return self.h(self.a(x).mean(1))
        return self.h(self.b(z).mean(1) if .4<out<.7 else sum(self.parts(x, z)))

TOWERS = fm.MixUp(8.),manifold(layers=[('a','b')])
@pytest.mark.parametrize('mixer', TOWERS, ids=str)
def test_towers_that_are_dropped_by_chance_are_mixed_where_they_run(mixer):
    net,batches = Towers(True),[(torch.randint(20, (8,5)),torch.randint(20, (8,4)),Y[:8]) for _ in range(16)]
    def right(b):
        p,q = net.parts(*b.x)
        return [net.h(lerp(b, o)) for o in (p,q,p+q)]
    assert follows(net, batches, mixer, right, n_inp=2) is None
    seen = train(net, batches, mixer, n_inp=2)[0]
    assert len(seen)==16 and all(b.mixed for b in seen)

@pytest.mark.parametrize('mixer', TOWERS, ids=str)
def test_a_tower_that_stops_without_a_draw_ends_the_fit(mixer):
    def late(model, i): model.late = i>=2
    batches = [(torch.randint(20, (8,5)),torch.randint(20, (8,4)),Y[:8]) for _ in range(4)]
    seen,error,*_ = train(Towers(False), batches, mixer, n_inp=2, late=late)
    assert len(seen)<4 and ('ran 1 times' in error or 'do not' in error)

# What a user says of an input

class Flags(nn.Module):
    def __init__(self):
        super().__init__()
        self.c,self.m,self.h = nn.Conv2d(3,8,3),nn.Linear(3,4),nn.Linear(12,3)
    def forward(self, x, flags): return self.h(torch.cat([self.c(x).relu().mean((2,3)),self.m(flags)], 1))

@pytest.mark.parametrize('cls', (fm.MixUp,fm.CutMix))
def test_flags_that_are_named_as_inputs_are_quantities(cls):
    batches = [(torch.randn(8,3,6,6),F.one_hot(torch.randint(0, 3, (8,)), 3).float(),Y[:8]) for _ in range(2)]
    for inputs,announced in ((None,1),((0,1),0)):
        _,error,said,_ = train(Flags(), batches, cls(inputs=inputs), n_inp=2)
        assert error is None and sum('name it in inputs= if it is a quantity' in o for o in said)==announced==len(said)

def test_a_mask_that_is_named_as_an_input_is_united_all_the_same():
    net,(x,m) = Hidden(),filled('ones', 0.)
    def right(b): return [net(lerp(b, x), m | m[b.perm])]
    assert follows(net, [(x,m,Y[:8])], fm.MixUp(8., inputs=(0,1)), right, n_inp=2) is None

def test_steps_of_a_named_input_are_not_announced():
    _,error,said,_ = train(Column(READ['near']), [(table(torch.arange(8)),Y[:8])], fm.MixUp(8., inputs=0))
    assert error and 'decides by' in error or not any('in steps' in o for o in said)
