"""Known losses against their definitions, an entry at a time in Python's own floats; and what only looks like a known loss

Nothing here calls a loss of PyTorch to find out what a loss must be."""
import copy, functools, itertools, math, threading
import fastai.losses as fl, pytest, torch, torch.nn.functional as F
from functools import partial
from torch import nn
from fastmix.known import is_known
from fastmix.loss import MixUpLoss

def gen(seed=0): return torch.Generator().manual_seed(seed)
B,C = 5,4
LAM = torch.tensor([.3,1.,0.,.85,.5])
W = torch.tensor([.2,1.,3.,.7])

# ---- definitions: the loss of one entry

def softplus(v): return max(v, 0)+math.log1p(math.exp(-abs(v)))
def log_clamped(v): return max(math.log(v), -100.) if v>0 else -100.
def stirling(t): return t*math.log(t)-t+.5*math.log(2*math.pi*t) if t>1 else 0.

def mse(p, t): return (p-t)**2
def l1(p, t): return abs(p-t)
def smooth_l1(p, t, beta=1.): return .5*(p-t)**2/beta if abs(p-t)<beta else abs(p-t)-.5*beta
def huber(p, t, delta=1.): return .5*(p-t)**2 if abs(p-t)<=delta else delta*(abs(p-t)-.5*delta)
def bce(p, t): return -(t*log_clamped(p)+(1-t)*log_clamped(1-p))
def bce_logits(p, t): return t*softplus(-p)+(1-t)*softplus(p)
def kl(p, t): return t*(math.log(t)-p) if t>0 else 0.
def kl_log(p, t): return math.exp(t)*(t-p)
def poisson(p, t): return math.exp(p)-t*p
def poisson_full(p, t): return p-t*math.log(p+1e-8)+stirling(t)
def soft_margin(p, t): return math.log1p(math.exp(-t*p))
def hinge(p, t, margin=1.): return p if t==1 else max(0., margin-p)

def multi_margin(row, t, p=1, margin=1., w=None):
    return sum(max(0., margin-row[t]+v)**p for j,v in enumerate(row) if j!=t)*(1. if w is None else w[t])/len(row)
def multi_label_margin(row, t):
    t = list(itertools.takewhile(lambda c: c>=0, t))
    return sum(max(0., 1-row[c]+v) for c in t for j,v in enumerate(row) if j not in t)/len(row)
def multi_label_soft(row, t, w=None): return sum(bce_logits(p, o)*(1. if w is None else w[j])
    for j,(p,o) in enumerate(zip(row, t)))/len(row)
def logsumexp(row): return max(row)+math.log(sum(math.exp(o-max(row)) for o in row))
def ce(row, t): return logsumexp(row)-row[t]
def focal(row, t, gamma=2., w=None):
    l = ce(row, t)*(1. if w is None else w[t])
    return (1-math.exp(-l))**gamma*l

def mixed(entries, entries1, lam, weights=None, weights1=None, reduction='mean'):
    "What a mixed loss is: `entries[i]` are those of sample i on its own targets, and so on"
    one = [[1.]*len(e) for e in entries]
    weights,weights1 = weights or one,weights1 or one
    both = [[l*a+(1-l)*b for a,b in zip(e, e1)] for l,e,e1 in zip(lam, entries, entries1)]
    if reduction=='none': return torch.tensor(sum(both, []), dtype=torch.double)
    total = sum(map(sum, both))
    if reduction=='sum': return torch.tensor(total, dtype=torch.double)
    if reduction=='batchmean': return torch.tensor(total/len(lam), dtype=torch.double)
    return torch.tensor(total/sum(l*a+(1-l)*b for l,w,w1 in zip(lam, weights, weights1) for a,b in zip(w, w1)), dtype=torch.double)

def check(f, pred, y, y1, entries, entries1, lam=LAM, reduction='mean', tol=1e-9, **weights):
    assert is_known(f)
    got = MixUpLoss(f)(pred, *y, yb1=y1, lam=lam)
    each = lam.tolist() if isinstance(lam, torch.Tensor) else [float(torch.tensor(lam))]*len(y[0])
    want = mixed(entries, entries1, each*(len(y[0])//len(each)), reduction=reduction, **weights)
    assert got.ndim==0 or reduction=='none'
    torch.testing.assert_close(got.flatten().double(), want.flatten(), rtol=tol, atol=tol)

def lams(): return [LAM, torch.tensor([.3]), .3, LAM*0+1, LAM*0]

# ---- one entry for each number

def some(f, *shape):
    "Predictions and two targets"
    g = gen(1)
    def one(kind): return {'real':lambda: torch.randn(shape, dtype=torch.double, generator=g),
        'share':lambda: torch.rand(shape, dtype=torch.double, generator=g),
        'count':lambda: torch.randint(5, shape, generator=g).double(), 'sign':lambda: torch.randint(2, shape, generator=g).double()*2-1,
        'positive':lambda: torch.rand(shape, dtype=torch.double, generator=g)*3+.01}[kind]()
    return [one(k) for k in f]

elementwise = [
    (nn.MSELoss, F.mse_loss, {}, mse, ('real','real')), (nn.L1Loss, F.l1_loss, {}, l1, ('real','real')),
    (nn.SmoothL1Loss, F.smooth_l1_loss, dict(beta=.5), partial(smooth_l1, beta=.5), ('real','real')),
    (nn.HuberLoss, F.huber_loss, dict(delta=.4), partial(huber, delta=.4), ('real','real')),
    (nn.BCELoss, F.binary_cross_entropy, {}, bce, ('share','share')),
    (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, {}, bce_logits, ('real','share')),
    (nn.KLDivLoss, F.kl_div, {}, kl, ('real','share')), (nn.KLDivLoss, F.kl_div, dict(log_target=True), kl_log, ('real','real')),
    (nn.PoissonNLLLoss, F.poisson_nll_loss, {}, poisson, ('real','count')),
    (nn.PoissonNLLLoss, F.poisson_nll_loss, dict(log_input=False, full=True), poisson_full, ('positive','count')),
    (nn.SoftMarginLoss, F.soft_margin_loss, {}, soft_margin, ('real','sign')),
    (nn.HingeEmbeddingLoss, F.hinge_embedding_loss, dict(margin=.7), partial(hinge, margin=.7), ('real','sign'))]
ids = lambda o: getattr(o, '__name__', None)

def entries_of(f, pred, y): return [[f(*o) for o in zip(p, t)] for p,t in zip(pred.flatten(1).tolist(), y.flatten(1).tolist())]

@pytest.mark.filterwarnings('ignore:reduction')
@pytest.mark.parametrize('shape', ((B,1), (B,C), (B,2,3)), ids=str)
@pytest.mark.parametrize('cls,func,kw,f,kinds', elementwise, ids=ids)
def test_elementwise(cls, func, kw, f, kinds, shape):
    (pred,y),(_,y1) = some(kinds, *shape),some((*kinds,kinds[1]), *shape)[1:]
    if f is kl: y[0] = 0
    own,other = entries_of(f, pred, y),entries_of(f, pred, y1)
    for lam,reduction in itertools.product(lams(), ('mean','sum','none') + ('batchmean',)*(cls is nn.KLDivLoss)):
        for loss in (cls(reduction=reduction, **kw), partial(func, reduction=reduction, **kw)):
            check(loss, pred, (y,), (y1,), own, other, lam, reduction)
    if not kw: check(func, pred, (y,), (y1,), own, other)

@pytest.mark.parametrize('cls,func,kw,f,kinds', elementwise[:6], ids=ids)
def test_flat(cls, func, kw, f, kinds):
    "Fastai's wrapper flattens predictions (B,1) for targets (B,), in float32; entries stand in the order of their samples"
    for shape,target in (((B,1),(B,)), ((B,C),(B,C)), ((B,2,3),(B,2,3))):
        pred,y,y1 = some((*kinds,kinds[1]), *shape)
        for reduction in ('mean','sum','none'):
            loss = fl.BaseLoss(cls, is_2d=False, reduction=reduction, **kw)
            check(loss, pred, (y.view(target),), (y1.view(target),), entries_of(f, pred, y), entries_of(f, pred, y1), LAM, reduction, 1e-5)

@pytest.mark.parametrize('w,pos', [*itertools.product((None,W), (None,W.flip(0)))])
def test_weighted_bce(w, pos):
    "The weights of entries do not count in the mean, as PyTorch has it"
    pred,y,y1 = some(('real','share','share'), B, C)
    def entries(t): return [[(1. if w is None else float(w[j]))*((1. if pos is None else float(pos[j]))*o*softplus(-p)+(1-o)*softplus(p))
        for j,(p,o) in enumerate(zip(*rows))] for rows in zip(pred.tolist(), t.tolist())]
    kw = dict(weight=None if w is None else w.double(), pos_weight=None if pos is None else pos.double())
    for loss in (nn.BCEWithLogitsLoss(**kw), partial(F.binary_cross_entropy_with_logits, **kw)): check(loss, pred, (y,), (y1,), entries(y),
        entries(y1))
    if pos is not None: check(fl.BCEWithLogitsLossFlat(weight=kw['weight'], pos_weight=pos), pred.float(), (y.float(),), (y1.float(),),
        entries(y), entries(y1), tol=1e-6)

def test_gaussian():
    "A mean and a variance belong together: this loss alone has two targets"
    pred,y,y1 = some(('real','real','real'), B, C)
    v,v1 = some(('positive','positive'), B, C)
    def entries(t, v): return [[.5*(math.log(s)+(p-o)**2/s) for p,o,s in zip(*rows)] for rows in zip(pred.tolist(), t.tolist(), v.tolist())]
    for lam,reduction in itertools.product(lams(), ('mean','sum','none')):
        for loss in (nn.GaussianNLLLoss(reduction=reduction), partial(F.gaussian_nll_loss, reduction=reduction)):
            check(loss, pred, (y,v), (y1,v1), entries(y, v), entries(y1, v1), lam, reduction)

# ---- one entry for a row of classes

rows = [(nn.MultiMarginLoss, F.multi_margin_loss, dict(p=2, margin=.5, weight=W.double()),
    partial(multi_margin, p=2, margin=.5, w=W.double().tolist()), 'class'),
    (nn.MultiLabelMarginLoss, F.multilabel_margin_loss, {}, multi_label_margin, 'classes'),
    (nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss, dict(weight=W.double()), partial(multi_label_soft, w=W.double().tolist()),
        'share')]

@pytest.mark.parametrize('cls,func,kw,f,kind', rows, ids=ids)
def test_rows(cls, func, kw, f, kind):
    pred, = some(('real',), B, C)
    make = {'class':lambda g: torch.randint(C, (B,), generator=g), 'share':lambda g: torch.rand(B, C, dtype=torch.double, generator=g),
        'classes':lambda g: torch.stack([torch.cat([torch.randperm(C, generator=g)[:k], -torch.ones(C-k).long()])
            for k in (1,2,3,4,2)])}[kind]
    y,y1 = make(gen(2)),make(gen(3))
    own,other = ([[f(p, t)] for p,t in zip(pred.tolist(), o.tolist())] for o in (y,y1))
    for lam,reduction in itertools.product(lams(), ('mean','sum','none')):
        for loss in (cls(reduction=reduction, **kw), partial(func, reduction=reduction, **kw)): check(loss, pred, (y,), (y1,), own, other,
            lam, reduction)

# ---- classes

def class_rows(pred):
    "For each sample its rows of logits, one for each place"
    return pred.flatten(2).transpose(1, 2).tolist() if pred.ndim>2 else [[o] for o in pred.tolist()]

def ce_entries(pred, y, w=None, ignore=-100, smooth=0.):
    "Losses and weights of each sample's places"
    losses,weights = [],[]
    for rows,ts in zip(class_rows(pred), y.flatten(1).tolist() if y.ndim>1 else [[t] for t in y.tolist()]):
        ws = [1.]*len(rows[0]) if w is None else w.tolist()
        ls = [[o-logsumexp(r) for o in r] for r in rows]
        weights.append([0. if t==ignore else ws[t] for t in ts])
        losses.append([0. if t==ignore else -(1-smooth)*ws[t]*l[t]-smooth/len(l)*sum(a*b for a,b in zip(ws, l)) for l,t in zip(ls, ts)])
    return losses,weights

def classes(*shape, seed=0, ignored=None):
    y = torch.randint(C, shape, generator=gen(seed))
    return y if ignored is None else y.masked_fill(torch.rand(shape, generator=gen(seed+9))<.4, ignored)

@pytest.mark.parametrize('shape', ((), (3,), (2,3)), ids=str)
@pytest.mark.parametrize('w,ignore,smooth', [*itertools.product((None,W), (-100,2), (0.,.2))])
def test_cross_entropy(shape, w, ignore, smooth):
    pred = torch.randn(B, C, *shape, dtype=torch.double, generator=gen(4))
    kw,wd = dict(ignore_index=ignore),None if w is None else w.double()
    for ignored in (None,ignore): # a clean batch, and one that is not
        y,y1 = classes(B, *shape, seed=1, ignored=ignored),classes(B, *shape, seed=2, ignored=ignored)
        (own,wo),(other,wt) = (ce_entries(pred, t, wd, ignore, smooth) for t in (y,y1))
        forms = [lambda r: nn.CrossEntropyLoss(wd, **kw, label_smoothing=smooth, reduction=r),
            lambda r: partial(F.cross_entropy, weight=wd, **kw, label_smoothing=smooth, reduction=r)]
        for lam,reduction,make in itertools.product(lams(), ('mean','sum','none'), forms):
            check(make(reduction), pred, (y,), (y1,), own, other, lam, reduction, weights=wo, weights1=wt)
        if not smooth:
            for loss in (nn.NLLLoss(wd, **kw), partial(F.nll_loss, weight=wd, **kw)):
                check(loss, pred.log_softmax(1), (y,), (y1,), own, other, weights=wo, weights1=wt)

@pytest.mark.parametrize('axis,shape', ((-1,()), (1,(3,)), (1,(2,3)), (-1,(3,))), ids=str)
@pytest.mark.parametrize('w', (None,W))
def test_flat_cross_entropy(axis, shape, w):
    "Fastai's flattening wrappers, with classes where `axis` says; the target of masks may have a channel"
    pred,y,y1 = torch.randn(B, C, *shape, generator=gen(4)),classes(B, *shape, seed=1, ignored=-100),classes(B, *shape, seed=2,
        ignored=-100)
    (own,wo),(other,wt) = (ce_entries(pred, t, w) for t in (y,y1))
    given = pred.movedim(1, axis)
    for reduction in ('mean','sum'):
        check(fl.CrossEntropyLossFlat(axis=axis, weight=w, reduction=reduction), given, (y,), (y1,), own, other, LAM, reduction, 1e-5,
            weights=wo, weights1=wt)
        if len(shape)==2:
            check(fl.CrossEntropyLossFlat(axis=axis, weight=w, reduction=reduction), given, (y[:,None],), (y1[:,None],), own, other, LAM,
                reduction, 1e-5, weights=wo, weights1=wt)
    none = MixUpLoss(fl.CrossEntropyLossFlat(axis=axis, weight=w, reduction='none'))(given, y, yb1=y1, lam=LAM)
    (own,_),(other,_) = (ce_entries(*(o.transpose(2, 3) if axis==1 and len(shape)==2 else o for o in (pred,)),
        t.transpose(1, 2) if axis==1 and len(shape)==2 else t, w) for t in (y,y1))
    torch.testing.assert_close(none.double(), mixed(own, other, LAM.tolist(), reduction='none'), rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('smooth,w', [*itertools.product((.1,.4), (None,W))])
def test_fastai_smoothing(smooth, w):
    "Fastai's own smoothing has two means: the one of cross-entropy, and one over all entries, ignored ones too"
    pred,y,y1 = torch.randn(B, C, 3, dtype=torch.double, generator=gen(4)),classes(B, 3, seed=1, ignored=-100),classes(B, 3, seed=2,
        ignored=-100)
    wd = None if w is None else w.double()
    (own,wo),(other,wt) = (ce_entries(pred, t, wd) for t in (y,y1))
    even = [[-sum(o-logsumexp(r) for o in r)/C for r in rows] for rows in class_rows(pred)]
    for lam,reduction in itertools.product(lams(), ('mean','sum','none')):
        each = lam.expand(B).tolist() if isinstance(lam, torch.Tensor) else [float(torch.tensor(lam))]*B
        want = (1-smooth)*mixed(own, other, each, wo, wt, reduction)+smooth*mixed(even, even, each, reduction=reduction)
        for loss,p,tol in ((fl.LabelSmoothingCrossEntropy(smooth, wd, reduction), pred, 1e-9),
            (fl.LabelSmoothingCrossEntropyFlat(smooth, weight=w, reduction=reduction), pred.transpose(1, 2).float(), 2e-6)):
            assert is_known(loss)
            torch.testing.assert_close(MixUpLoss(loss)(p, y, yb1=y1, lam=lam).flatten().double(), want.flatten(), rtol=tol, atol=tol)

@pytest.mark.parametrize('gamma,w', [*itertools.product((0.,2.), (None,W))])
def test_focal(gamma, w):
    "The focal loss takes a mean over its entries without their weights"
    pred,y,y1 = torch.randn(B, C, 3, dtype=torch.double, generator=gen(4)),classes(B, 3, seed=1),classes(B, 3, seed=2)
    wd = None if w is None else w.double()
    own,other = ([[focal(r, t, gamma, wd if wd is None else wd.tolist()) for r,t in zip(rows, ts)]
        for rows,ts in zip(class_rows(pred), o.tolist())] for o in (y,y1))
    for lam,reduction in itertools.product(lams(), ('mean','sum','none')):
        check(fl.FocalLoss(gamma, wd, reduction), pred, (y,), (y1,), own, other, lam, reduction)
        check(fl.FocalLossFlat(gamma=gamma, weight=w, reduction=reduction), pred.transpose(1, 2).float(), (y,), (y1,), own, other, lam,
            reduction, 2e-6)

@pytest.mark.parametrize('shape', ((), (3,)), ids=str)
@pytest.mark.parametrize('w,smooth', [*itertools.product((None,W), (0.,.2))])
def test_probabilities(shape, w, smooth):
    "Cross-entropy of probabilities is linear in them: the mean is over places, whatever the weights"
    pred = torch.randn(B, C, *shape, dtype=torch.double, generator=gen(4))
    y,y1 = (torch.rand(B, C, *shape, dtype=torch.double, generator=gen(s)).softmax(1) for s in (1,2))
    wd = None if w is None else w.double()
    ws = [1.]*C if w is None else wd.tolist()
    def entries(t): return [[-sum(ws[c]*((1-smooth)*q[c]+smooth/C)*(r[c]-logsumexp(r)) for c in range(C)) for r,q in zip(*both)]
        for both in zip(class_rows(pred), class_rows(t))]
    for lam,reduction in itertools.product(lams(), ('mean','sum','none')):
        for loss in (nn.CrossEntropyLoss(wd, label_smoothing=smooth, reduction=reduction),
            partial(F.cross_entropy, weight=wd, label_smoothing=smooth, reduction=reduction)):
            check(loss, pred, (y,), (y1,), entries(y), entries(y1), lam, reduction)

# ---- what only looks like a known loss

class Subclass(nn.CrossEntropyLoss): pass
class Weighted(nn.CrossEntropyLoss):
    def forward(self, pred, y): return F.cross_entropy(pred, y, weight=W, reduction=self.reduction)
class OwnCall(nn.CrossEntropyLoss):
    def __call__(self, pred, y): return super().__call__(pred/4, y)
class OwnFlat(fl.CrossEntropyLossFlat):
    def __call__(self, pred, y, **kw): return super().__call__(pred/4, y, **kw)
def cross_entropy(pred, y, reduction='mean'): return F.cross_entropy(pred, y, ignore_index=0, reduction=reduction)
def hooked(kind):
    f = nn.CrossEntropyLoss()
    {'forward':lambda: f.register_forward_hook(lambda f,args,out: out*2),
        'pre':lambda: f.register_forward_pre_hook(lambda f,args: (args[0]/4,args[1])),
        'backward':lambda: f.register_full_backward_hook(lambda *args: None),
            'backward_pre':lambda: f.register_full_backward_pre_hook(lambda *args: None)}[kind]()
    return f
def replaced(f, **kw):
    for k,v in kw.items(): object.__setattr__(f, k, v)
    return f
def four(pred, y): return F.cross_entropy(pred/4, y)
def compiled_in_place():
    f = nn.CrossEntropyLoss()
    f.compile(backend='eager')
    return f
def parametrised():
    class Twice(nn.Module):
        def forward(self, w): return w*2
    f = nn.CrossEntropyLoss(weight=W)
    nn.utils.parametrize.register_parametrization(f, 'weight', Twice())
    return f
def inner(f, **kw):
    flat = f()
    replaced(flat.func, **kw)
    return flat
class Partial(functools.partial):
    def __call__(self, pred, y): return super().__call__(pred/4, y)

others = dict(subclass=Subclass, weighted=Weighted, own_call=OwnCall, own_flat=OwnFlat, same_name=lambda: cross_entropy,
    forward_hook=lambda: hooked('forward'), pre_hook=lambda: hooked('pre'), backward_hook=lambda: hooked('backward'),
        backward_pre=lambda: hooked('backward_pre'),
    forward_set=lambda: replaced(nn.CrossEntropyLoss(), forward=four), call_set=lambda: inner(fl.CrossEntropyLossFlat, __call__=four),
    inner_forward=lambda: inner(fl.CrossEntropyLossFlat, forward=four),
        contiguous_set=lambda: replaced(fl.CrossEntropyLossFlat(), _contiguous=lambda o: o),
    compiled=lambda: torch.compile(nn.CrossEntropyLoss(), backend='eager'), compiled_in_place=compiled_in_place,
        compiled_function=lambda: torch.compile(F.cross_entropy, backend='eager'),
    scripted=lambda: torch.jit.script(nn.CrossEntropyLoss()), parametrised=parametrised,
        lambdas=lambda: lambda pred,y: F.cross_entropy(pred, y),
    positional=lambda: partial(_swapped, True), reduced=lambda: partial(F.cross_entropy, reduce=True),
    averaged=lambda: partial(F.cross_entropy, size_average=True), sub_partial=lambda: Partial(F.cross_entropy),
        method=lambda: nn.CrossEntropyLoss().forward,
    of_module=lambda: partial(nn.CrossEntropyLoss()), flat_of_subclass=lambda: fl.BaseLoss(Subclass),
        dice=lambda: lambda p,y: fl.DiceLoss()(p[...,None], y[...,None]))
def _swapped(flag, pred, y): return F.cross_entropy(pred, y)

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', others)
def test_others(name):
    "One lambda for the batch, by two calls, from a clean first batch to the last; a lambda for each sample is refused with the way out"
    f = others[name]()
    assert not is_known(f)
    loss = MixUpLoss(f)
    for k in range(3):
        pred,y = torch.randn(B, C, generator=gen(k)),classes(B, seed=k).clamp(min=k==0)
        y1 = y.roll(1)
        torch.testing.assert_close(torch.as_tensor(loss(pred, y, yb1=y1, lam=.3)), torch.as_tensor(.3*f(pred, y)+.7*f(pred, y1)), rtol=1e-5,
            atol=1e-6)
        assert torch.equal(torch.as_tensor(loss(pred, y)), torch.as_tensor(f(pred, y)))
        with pytest.raises(ValueError, match=r"per_sample=False.*reduction='none'"): loss(pred, y, yb1=y1, lam=LAM)

def test_not_these():
    "Losses of PyTorch whose mean is not that of their entries"
    for f in (nn.CTCLoss(), F.ctc_loss, nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5]), nn.CosineEmbeddingLoss(), nn.TripletMarginLoss(),
        fl.DiceLoss(), fl.DiceLoss(reduction='mean')):
        assert not is_known(f)
    for f in (F.mse_loss, F.l1_loss, F.huber_loss): assert not is_known(partial(f, weight=torch.ones(B)))
    if hasattr(nn, 'LinearCrossEntropyLoss'): assert not is_known(nn.LinearCrossEntropyLoss(8, 4))

def test_exchanged(monkeypatch):
    "Whatever is exchanged in PyTorch or fastai itself is seen, and seen to be gone"
    f,flat = nn.CrossEntropyLoss(),fl.CrossEntropyLossFlat()
    for owner,name in ((F,'cross_entropy'), (nn.CrossEntropyLoss,'forward'), (nn.CrossEntropyLoss,'__call__')):
        old = getattr(owner, name)
        with monkeypatch.context() as m:
            m.setattr(owner, name, functools.wraps(old)(lambda *args, **kw: old(*args, **kw)))
            assert not is_known(f) and not is_known(flat), name
        assert is_known(f) and is_known(flat)
    for name in ('__call__','_contiguous'):
        old = getattr(fl.BaseLoss, name)
        with monkeypatch.context() as m:
            m.setattr(fl.BaseLoss, name, lambda *args, **kw: old(*args, **kw))
            assert not is_known(flat) and is_known(f), name
    handle = nn.modules.module.register_module_forward_hook(lambda f,args,out: out*2)
    assert not is_known(f) and not is_known(flat) and is_known(F.cross_entropy)
    handle.remove()
    handle = f.register_forward_hook(lambda f,args,out: out*2)
    assert not is_known(f)
    handle.remove()
    assert is_known(f) and is_known(flat)

def test_options_change():
    "What is set on a loss counts from the next call on"
    f,pred,y = nn.CrossEntropyLoss(),torch.randn(B, C),classes(B)
    loss = MixUpLoss(f)
    f.weight,f.reduction = W,'sum'
    torch.testing.assert_close(loss(pred, y, yb1=y.roll(1), lam=LAM*0+1), F.cross_entropy(pred, y, weight=W, reduction='sum'))

def test_deprecated_module():
    "A module keeps no deprecated option: it has its reduction"
    with pytest.warns(UserWarning): f = nn.MSELoss(size_average=False)
    pred,y,y1 = some(('real','real','real'), B, C)
    check(f, pred, (y,), (y1,), entries_of(mse, pred, y), entries_of(mse, pred, y1), reduction='sum')

# ---- shapes, zero weights, threads

real_losses = [o for o in elementwise if o[0] not in (nn.BCELoss,nn.BCEWithLogitsLoss,nn.SoftMarginLoss)] # these refuse it themselves
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('cls,func,kw,f,kinds', real_losses, ids=ids)
def test_broadcast(cls, func, kw, f, kinds):
    "What would be broadcast is refused where it is mixed; plain it is the loss's own business"
    pred,y = some(kinds, B, 1)
    plain = MixUpLoss(cls(**kw))(pred, y[:,0])
    assert torch.equal(plain, cls(**kw)(pred, y[:,0]))
    for loss in (cls(**kw), partial(func, **kw), fl.BaseLoss(cls, flatten=False, **kw)):
        with pytest.raises(ValueError, match=r'entry by entry, but got shapes \(5, 1\) and \(5,\)'): MixUpLoss(loss)(pred, y[:,0],
            yb1=y[:,0].flip(0), lam=LAM)

@pytest.mark.parametrize('cls,func,kw,f,kinds', elementwise[:4], ids=ids)
@pytest.mark.parametrize('bad', (math.inf,-math.inf,math.nan))
def test_zero_weight(cls, func, kw, f, kinds, bad):
    "A partner whose target is infinite or undefined leaves loss and gradient of lam=1 alone, and the other way round"
    pred,y = some(kinds, B, C)
    broken = torch.full_like(y, bad)
    want_grad = torch.autograd.grad(cls(**kw)(p := pred.clone().requires_grad_(), y), p)[0]
    for own,other,lam in ((y,broken,LAM*0+1), (broken,y,LAM*0), (y,broken,1), (broken,y,0.)):
        loss = MixUpLoss(cls(**kw))(p := pred.clone().requires_grad_(), own, yb1=other, lam=lam)
        torch.testing.assert_close(loss, cls(**kw)(pred, y))
        torch.testing.assert_close(torch.autograd.grad(loss, p)[0], want_grad)

def test_masked_classes():
    "Classes masked by minus infinity in the logits make nothing undefined that is finite in the plain loss"
    pred = torch.randn(B, C)
    pred[:,3] = -math.inf
    y,y1 = torch.tensor([0,1,2,0,1]),torch.tensor([1,-100,3,2,-100])
    lam = torch.tensor([.5,.3,1.,.2,.9])
    for f in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=W)):
        loss = MixUpLoss(f)(p := pred.clone().requires_grad_(), y, yb1=y1, lam=lam)
        loss.backward()
        assert loss.isfinite() and p.grad.isfinite().all()
        w = f.weight if f.weight is not None else torch.ones(C)
        num = den = 0.
        for i in range(B):
            for t,l in ((y[i],lam[i]),(y1[i],1-lam[i])):
                if t!=-100 and l>0: num,den = num+l*w[t]*(pred[i].logsumexp(0)-pred[i,t]),den+l*w[t]
        torch.testing.assert_close(loss, num/den)

def test_shared_by_threads():
    "Threads that share a loss, some with it mixed, all see it as it is"
    f,wrong = nn.MSELoss(),[]
    pred,y = torch.zeros(200, 50),torch.ones(200, 50)
    def plain():
        for _ in range(300):
            if f(pred, y).ndim or f.reduction!='mean': wrong.append(1)
    def mix():
        for _ in range(300): MixUpLoss(f)(pred, y, yb1=pred, lam=torch.rand(200))
    threads = [threading.Thread(target=t) for t in (plain,mix,plain,mix)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong

@pytest.mark.parametrize('make', (nn.CrossEntropyLoss, nn.MSELoss, fl.CrossEntropyLossFlat, fl.FocalLoss, fl.MSELossFlat, nn.KLDivLoss),
    ids=ids)
def test_never_written_to(make):
    "Nothing is written to a known loss, not even for a moment"
    f,written = make(),[]
    target = f.func if hasattr(f, 'func') else f
    cls = type(target)
    old = cls.__setattr__
    float_target = cls in (nn.MSELoss,nn.KLDivLoss)
    pred = torch.randn(B, C).log_softmax(1)
    y,y1 = (torch.rand(B, C),torch.rand(B, C)) if float_target else (classes(B),classes(B, seed=1))
    try:
        cls.__setattr__ = lambda self,k,v: (written.append(k), old(self, k, v))[1]
        assert is_known(f)
        for lam in (LAM,.3): MixUpLoss(f)(pred, y, yb1=y1, lam=lam)
    finally: del cls.__setattr__
    assert not written

def test_positions():
    "Partners' targets and lambda given by position are answered by their names"
    pred,y = torch.randn(B, C),classes(B)
    def own(pred, y): return pred.sum()
    for f in (nn.CrossEntropyLoss(), F.cross_entropy, F.mse_loss, fl.CrossEntropyLossFlat(), own, Subclass(),
        partial(F.mse_loss, reduction='sum')):
        with pytest.raises(TypeError, match=r'yb1=y1, lam=lam'): MixUpLoss(f)(pred, y, y.flip(0), .5)
        with pytest.raises(TypeError, match=r'yb1=y1, lam=lam'): MixUpLoss(f)(pred, y, y.flip(0), LAM)

def test_several_targets():
    "A known function with a second target, a weight for each sample, counts as any other loss"
    f,pred,y,w = F.binary_cross_entropy_with_logits,torch.randn(B, C),torch.rand(B, C),torch.rand(B, C)
    assert is_known(f) and is_known(f, 1) and not is_known(f, 2) and is_known(nn.GaussianNLLLoss(),
        2) and not is_known(nn.GaussianNLLLoss(), 1)
    loss = MixUpLoss(f)
    torch.testing.assert_close(loss(pred, y, w, yb1=(y.flip(0),w.flip(0)), lam=.3), .3*f(pred, y, w)+.7*f(pred, y.flip(0), w.flip(0)))
    with pytest.raises(ValueError, match='per_sample=False'): loss(pred, y, w, yb1=(y.flip(0),w.flip(0)), lam=LAM)
    assert torch.equal(loss(pred, y, w), f(pred, y, w))

def test_wrapped_twice():
    "A mixed loss of a mixed loss is known if what it wraps is"
    pred,y = torch.randn(B, C),classes(B)
    f = MixUpLoss(MixUpLoss(nn.CrossEntropyLoss(weight=W)))
    assert is_known(f) and not is_known(MixUpLoss(Subclass()))
    assert torch.equal(f(pred, y, yb1=y.flip(0), lam=LAM), MixUpLoss(nn.CrossEntropyLoss(weight=W))(pred, y, yb1=y.flip(0), lam=LAM))
    assert is_known(copy.deepcopy(f))
