"""What holds for every batch, found out by trying many: against slow oracles that know nothing of how the package computes

The same batches each time; `FASTMIX_EXAMPLES=20 pytest tests/test_properties.py` tries twenty times as many."""
import itertools, math, os, re, numpy as np, pytest, torch, torch.nn.functional as F
from collections import Counter
from functools import partial
from scipy import stats
from torch import nn, Tensor
from torch.utils import _pytree as pytree
from torch.profiler import ProfilerActivity, profile
from hypothesis import HealthCheck, given, settings, strategies as st
from fastai.basics import Callback, DataLoaders, Learner, TrainEvalCallback
from fastai.losses import (BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLoss, FocalLossFlat, L1LossFlat, LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat, MSELossFlat)
from fastai.torch_core import TensorImage, TensorMask
from fastmix.draw import box_lam, draw_boxes, draw_lam, draw_perm, place_boxes
from fastmix.loss import MixUpLoss, dense_loss
from fastmix.mix import cutmix_batch, mix_targets, mixup_batch
from fastmix.paste import box_mask, paste
from fastmix.targets import check_mask, lies_over
from fastmix.nested import is_index, leaves, n_samples, rebuild
from fastmix.callback import CutMix, MixUp

torch.set_num_threads(1)
def many(n):
    "Settings for `n` examples"
    n,may_be = max(1, int(n*float(os.environ.get('FASTMIX_EXAMPLES', 1)))),[HealthCheck.too_slow,HealthCheck.data_too_large]
    return settings(max_examples=n, derandomize=True, deadline=None, database=None, suppress_health_check=may_be)

floats = torch.float16,torch.bfloat16,torch.float32,torch.float64
alphas = st.one_of(st.sampled_from((0, 1e-4, 0.2, 1., 1e3)), st.floats(-4, 3).map(lambda o: 10**o))
seeds = st.integers(0, 2**32-1)

def gen(seed): return torch.Generator().manual_seed(seed)
def same(a, b): return a.dtype==b.dtype and a.shape==b.shape and torch.equal(a, b)

# Batches

def layout(x, how):
    "`x` with the strides of another layout"
    if how=='last' and x.ndim in (4,5): return x.contiguous(memory_format=torch.channels_last if x.ndim==4 else torch.channels_last_3d)
    if how=='turned' and x.ndim>1: return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how=='step': return torch.stack([x,x*0], -1)[...,0]
    if how=='spread': return x[:,:1].expand_as(x) if x.ndim>1 else x
    return x.contiguous()

@st.composite
def batches(draw, ranks=(1,5), most=6, dtypes=floats):
    "Tensors with 1 to `most` samples"
    shape = draw(st.lists(st.integers(1, 5), min_size=ranks[0]-1, max_size=ranks[1]-1))
    x = 3*torch.randn(draw(st.integers(1, most)), *shape, generator=gen(draw(seeds)), dtype=torch.float64)
    return layout(x.to(draw(st.sampled_from(dtypes))), draw(st.sampled_from(('plain','last','turned','step','spread'))))

def targets(draw, n):
    "Targets of any kind for `n` samples, or none"
    g,shape = gen(draw(seeds)),(n,*draw(st.lists(st.integers(1, 3), max_size=2)))
    kind = draw(st.sampled_from((None, torch.int64, torch.uint8, torch.bool, *floats)))
    return kind if kind is None else (1e3*torch.randn(shape, generator=g)).to(kind)

def lams(draw, n):
    "A lambda as a number, one for the batch or one for each sample; the ends included"
    kind,one = draw(st.sampled_from(('number','batch','sample','ends'))),st.floats(0, 1, width=32)
    if kind=='number': return draw(st.one_of(one, st.sampled_from((0,1))))
    if kind=='batch': n = 1
    return torch.tensor(draw(st.lists(st.sampled_from((0.,1.)) if kind=='ends' else one, min_size=n, max_size=n)))

def perms(draw, n): return draw(st.one_of(st.none(), st.lists(st.integers(0, n-1), min_size=n, max_size=n)))

def keeps_layout(new, x):
    "Dense strides are kept; others become plain ones, or keep their order"
    if x.is_contiguous(): return new.is_contiguous()
    for ndim,fmt in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if x.ndim==ndim and x.is_contiguous(memory_format=fmt): return new.is_contiguous(memory_format=fmt)
    return True

# Mixed inputs

@many(300)
@given(st.data(), batches())
def test_mixup(data, x):
    "Every entry is `lam*a + (1-lam)*b`, to the last bits of its dtype; nothing that was given changes"
    n,perm = len(x),perms(data.draw, len(x))
    lam,y = lams(data.draw, n),torch.arange(n) if perm is None else targets(data.draw, n)
    given = [x,y,lam]
    before = [o.clone() if isinstance(o, Tensor) else o for o in given]
    torch.manual_seed(data.draw(seeds))
    xm,y1,l = mixup_batch(x, y, lam=lam, perm=perm)
    for a,b in zip(given, before): assert same(a, b) if isinstance(a, Tensor) else a is b
    assert xm.dtype==x.dtype and xm.shape==x.shape and keeps_layout(xm, x) and l.dtype==torch.float32
    assert xm.untyped_storage().data_ptr()!=x.untyped_storage().data_ptr()
    if perm is None: perm = y1.tolist()
    assert y1 is None if y is None else same(y1, torch.stack([y[j] for j in perm]))
    ts = lam.tolist() if isinstance(lam, Tensor) else [float(np.float32(lam))]
    assert l.tolist()==ts
    for new,old,t,j in zip(xm.double(), x.double(), ts if len(ts)==n else ts*n, perm):
        a,b = old,x[j].double()
        assert ((new-(t*a + (1-t)*b)).abs() <= 3*torch.finfo(x.dtype).eps*torch.maximum(a.abs(), b.abs())).all()
        if t in (0,1): assert torch.equal(new, a if t else b)

@many(100)
@given(batches(), alphas, st.booleans(), st.booleans(), seeds)
def test_mixup_drawn(x, alpha, per_sample, dedup, seed):
    "Drawn lambdas lie in [0, 1] and mix between a sample and its partner; a seed repeats them; `alpha=0` and a batch of one change nothing"
    torch.manual_seed(seed)
    y = torch.arange(len(x))
    xm,y1,lam = mixup_batch(x, y, alpha, per_sample=per_sample, dedup=dedup)
    torch.manual_seed(seed)
    again = mixup_batch(x, y, alpha, per_sample=per_sample, dedup=dedup)
    assert all(torch.equal(a, b) for a,b in zip((xm,y1,lam), again))
    assert lam.shape==((len(x) if per_sample else 1),) and (0<=lam).all() and (lam<=1).all() and not (dedup and (lam<.5).any())
    lo,hi = torch.minimum(x, x[y1]).double(),torch.maximum(x, x[y1]).double()
    slack = 2*torch.finfo(x.dtype).eps*torch.maximum(lo.abs(), hi.abs())
    assert ((xm.double()>=lo-slack)&(xm.double()<=hi+slack)).all()
    if alpha==0 or len(x)==1: assert torch.equal(xm, x)
    assert sorted(y1.tolist())==y.tolist() and (len(x)==1 or (y1!=y).all())

@pytest.mark.parametrize('f', (mixup_batch,cutmix_batch))
def test_memory(f):
    "A mix makes one tensor as large as the batch, which is its result, as the allocator counts it"
    for shape in ((4,3,16,16),(2,3,256,256)):
        x = torch.rand(shape)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p: kept = f(x)
        made = [e.nbytes() for e in p.profiler.kineto_results.events() if e.name()=='[memory]' and e.nbytes()>=x.nbytes]
        assert made==[kept[0].nbytes]

def inside(box, size):
    "Pixels inside of a box, told one by one"
    return torch.tensor([all(lo<=i<hi for i,(lo,hi) in zip(at, box)) for at in itertools.product(*map(range, size))]).view(size)

def share_outside(boxes, size): return [np.float32((~inside(o, size)).sum().item()/math.prod(size)).item() for o in boxes.tolist()]

@st.composite
def cuts(draw, n, size):
    "Arguments of `cutmix_batch` that say where boxes come from"
    kind = draw(st.sampled_from(('alpha','lam','lams','length','minmax','boxes','box')))
    kw = dict(per_sample=draw(st.booleans()), uniform=draw(st.booleans()))
    if kind=='alpha': kw['alpha'] = draw(alphas)
    if kind=='lam': kw['lam'] = draw(st.one_of(st.floats(0, 1), st.sampled_from((0,1))))
    if kind=='lams': kw.update(lam=torch.tensor(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n))), per_sample=True)
    if kind=='length': kw['length'] = draw(st.floats(0.01, 1))
    if kind=='minmax': kw.update(minmax=tuple(sorted((draw(st.floats(0.01, 1)),draw(st.floats(0.01, 1))))), uniform=False)
    if kind in ('boxes','box'):
        kw['boxes'] = [[sorted((draw(st.integers(0, s)),draw(st.integers(0, s)))) for s in size] for _ in range(n if kind=='boxes' else 1)]
    return kw

def check_sides(kw, boxes, size):
    "Are boxes as large as was asked for?"
    for box in boxes.tolist():
        for (lo,hi),s in zip(box, size):
            assert 0<=lo<=hi<=s
            if 'minmax' in kw: assert max(1, round(kw['minmax'][0]*s-1e-4)) <= hi-lo <= max(1, round(kw['minmax'][1]*s+1e-4))
            if 'length' in kw: assert hi-lo <= max(1, round(kw['length']*s+1e-4))

@many(250)
@given(st.data(), batches((3,5)), st.sampled_from(('plain','grad','image')))
def test_cutmix(data, plain, how):
    "Every pixel is the sample's own or its partner's, as the box says; lambda is the share of pixels outside of it, counted one by one"
    n,size,perm = len(plain),tuple(plain.shape[2:]),perms(data.draw, len(plain))
    kw,y = data.draw(cuts(n, size)),torch.arange(n) if perm is None else targets(data.draw, n)
    x = plain.clone().requires_grad_() if how=='grad' else plain.as_subclass(TensorImage) if how=='image' else plain
    x0,y0 = plain.clone(),None if y is None else y.clone()
    torch.manual_seed(data.draw(seeds))
    xm,y1,lam,boxes = cutmix_batch(x, y, perm=perm, **kw)
    assert same(x.detach().as_subclass(Tensor), x0) and (y is None or same(y, y0))
    assert type(xm) is type(x) and xm.requires_grad==(how=='grad')
    new = xm.detach().as_subclass(Tensor)
    assert new.dtype==x0.dtype and new.shape==x0.shape and keeps_layout(new, x.detach()) and lam.dtype==torch.float32
    rows = len(kw['boxes']) if 'boxes' in kw else n if kw['per_sample'] else 1
    assert lam.shape==(rows,) and boxes.shape==(rows, len(size), 2)
    if 'boxes' in kw: assert boxes.tolist()==kw['boxes']
    check_sides(kw, boxes, size)
    assert lam.tolist()==share_outside(boxes, size)
    if perm is None: perm = y1.tolist()
    assert y1 is None if y is None else same(y1, torch.stack([y0[j] for j in perm]))
    for i,(j,box) in enumerate(zip(perm, boxes.expand(n, -1, -1).tolist())):
        assert torch.equal(new[i], torch.where(inside(box, size), x0[j], x0[i]))
    if kw.get('alpha')==0: assert torch.equal(new, x0)

@many(100)
@given(st.data(), batches((2,5), most=4), st.sampled_from((torch.uint8, torch.bool, torch.int64, torch.float32, torch.bfloat16)))
def test_paste(data, y, dtype):
    "Masks of any dtype, with or without a channel dimension, are cut like images, whichever way `paste` takes"
    y = (y*40).to(dtype)
    n,D = len(y),data.draw(st.integers(1, min(3, y.ndim-1)))
    size,perm = y.shape[-D:],torch.tensor(data.draw(st.lists(st.integers(0, n-1), min_size=n, max_size=n)))
    boxes = draw_boxes(size, draw_lam(n, 1., dedup=False))
    y0,res = y.clone(),paste(y, perm, boxes)
    assert same(y, y0) and res.untyped_storage().data_ptr()!=y.untyped_storage().data_ptr()
    assert same(res, paste(y.as_subclass(TensorMask), perm, boxes).as_subclass(Tensor))
    for i,(j,box) in enumerate(zip(perm, boxes.tolist())): assert torch.equal(res[i], torch.where(inside(box, size), y0[j], y0[i]))

@many(60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), alphas, st.booleans(), st.booleans(), st.integers(1, 8), seeds)
def test_boxes(size, alpha, uniform, dedup, n, seed):
    "Boxes lie in the image, are never larger than asked for, and are counted exactly, in whatever order the dimensions come"
    lam = draw_lam(n, alpha, dedup, generator=gen(seed))
    boxes = draw_boxes(size, lam, uniform, gen(seed))
    assert boxes.shape==(n,len(size),2) and boxes.dtype==torch.int64
    for box,l in zip(boxes.tolist(), lam.tolist()):
        for (lo,hi),s in zip(box, size): assert 0<=lo<=hi<=s and hi-lo<=s*(1-l)**(1/len(size))+.5+1e-4
    assert box_lam(boxes, size).tolist()==share_outside(boxes, size)
    assert torch.equal(box_mask(boxes, size), torch.stack([inside(o, size)[None] for o in boxes.tolist()]))
    assert torch.equal(box_lam(boxes.flip(1), size[::-1]), box_lam(boxes, size))

def test_boxes_beyond_the_border():
    "Of a box that reaches beyond the image, or lies outside, the part inside counts"
    boxes = torch.randint(-4, 12, (200,2,2), generator=gen(0)).sort(-1)[0]
    assert box_lam(boxes, (7,9)).tolist()==share_outside(boxes, (7,9))

# Losses

def logs(row):
    "Log-softmax of a list, in Python's own floats"
    top = max(row)
    total = top+math.log(sum(math.exp(o-top) for o in row))
    return [o-total for o in row]

def entry(row, t, weight, ignored, smooth, done):
    "Cross-entropy of one entry from its definition: loss and weight"
    if t==ignored: return 0.,0.
    w,lp = weight or [1.]*len(row),row if done else logs(row)
    return -(1-smooth)*w[t]*lp[t] - smooth/len(row)*sum(a*b for a,b in zip(w, lp)),w[t]

def slow_ce(pred, y, y1, lam, weight=None, ignored=-100, smooth=0., reduction='mean', done=False, turned=False):
    "Mixed cross-entropy, entry by entry; `pred` `(B,C,...)`, with `done` its logarithms; `turned`: in the order in which fastai flattens"
    rows = pred.double().movedim(1, -1).reshape(-1, pred.shape[1]).tolist()
    ls = [l for l in lam.expand(len(y)).double().tolist() for _ in range(y.numel()//len(y))]
    res = [[l*p + (1-l)*q for p,q in zip(entry(r, a, weight, ignored, smooth, done), entry(r, b, weight, ignored, smooth, done))]
        for r,a,b,l in zip(rows, y.flatten().tolist(), y1.flatten().tolist(), ls)]
    if reduction=='none':
        each = torch.tensor([o[0] for o in res]).view(len(y), *pred.shape[2:])
        return each.transpose(1, -1) if turned and pred.ndim>2 else each
    num,den = (sum(o) for o in zip(*res))
    return torch.tensor(num if reduction=='sum' else num/den if den else math.nan)

@st.composite
def ce_cases(draw, dtypes=floats):
    "A cross-entropy in one of its many forms, with predictions, both targets, lambda, and what the oracle needs to know"
    g,B,C = gen(draw(seeds)),draw(st.integers(1, 5)),draw(st.integers(2, 5))
    shape = draw(st.lists(st.integers(1, 3), max_size=2))
    dtype = draw(st.sampled_from(dtypes))
    pred = (4*torch.randn(B, C, *shape, generator=g)).to(dtype)
    y,y1 = (torch.randint(C, (B,*shape), generator=g) for _ in range(2))
    kw = {}
    if draw(st.booleans()): kw['weight'] = torch.rand(C, generator=g)+.1
    if draw(st.booleans()): kw['ignore_index'] = draw(st.sampled_from((-100, 0, C-1, 255)))
    if draw(st.booleans()): kw['label_smoothing'] = draw(st.sampled_from((.1,.5)))
    for t in (y,y1): t.masked_fill_(torch.rand(t.shape, generator=g)<draw(st.sampled_from((0,.4))), kw.get('ignore_index', -100))
    if 'weight' in kw: kw['weight'] = kw['weight'].to(dtype)
    reduction = draw(st.sampled_from(('mean','sum','none')))
    n = 1 if draw(st.booleans()) else B
    lam = torch.tensor(draw(st.lists(st.one_of(st.floats(0, 1, width=32), st.sampled_from((0.,1.))), min_size=n, max_size=n)))
    form = draw(st.sampled_from(('module','function','nll','flat')[:3 if dtype==torch.float64 else 4])) # fastai's compute no doubles
    slow = dict(ignored=kw.get('ignore_index', -100), smooth=kw.get('label_smoothing', 0.), reduction=reduction, turned=form=='flat')
    if 'weight' in kw: slow['weight'] = kw['weight'].tolist()
    if form=='nll':
        kw.pop('label_smoothing', None)
        slow['smooth'],slow['done'],pred = 0.,True,pred.log_softmax(1)
    if form=='flat' and shape and draw(st.booleans()): y,y1 = y[:,None],y1[:,None]
    make = dict(module=nn.CrossEntropyLoss, nll=nn.NLLLoss, flat=partial(CrossEntropyLossFlat, axis=1 if shape else -1),
        function=partial(partial, F.cross_entropy))[form]
    return make(**kw, reduction=reduction),pred,y,y1,lam,slow

def close(a, b, pred, tol=2e-5):
    "Equal, but for rounding in the precision that losses are computed in; NaN where the other is"
    a,b = a.double().flatten(),b.double().flatten()
    if pred.dtype==torch.float64: tol = 1e-6
    return bool(((a-b).abs()<=tol*(1+b.abs())).logical_or(a.isnan()&b.isnan()).all())

@many(400)
@given(ce_cases())
def test_cross_entropy(case):
    "Cross-entropy of any form is the weighted mean of its definition, entry by entry, in float32 whatever the predictions are"
    f,pred,y,y1,lam,slow = case
    loss = MixUpLoss(f)(pred, y, yb1=y1, lam=lam)
    assert loss.dtype==(torch.float64 if pred.dtype==torch.float64 else torch.float32)
    assert close(loss, slow_ce(pred, y, y1, lam, **slow), pred)
    if slow['reduction']!='none': assert loss.ndim==0
    assert close(MixUpLoss(f)(pred, y1, yb1=y, lam=1-lam), loss, pred)

@many(200)
@given(ce_cases(floats[2:]), seeds)
def test_ends(case, seed):
    "With every lambda 0 or 1 it is the plain loss on the targets so chosen, gradients too; with one in between it lies between its ends"
    f,pred,y,y1,lam,slow = case
    chosen = torch.rand(len(y), generator=gen(seed)).round()
    both = torch.where(chosen.view(-1, *[1]*(y.ndim-1)).bool(), y, y1)
    p,q = (pred.detach().clone().requires_grad_() for _ in range(2))
    a,b = MixUpLoss(f)(p, y, yb1=y1, lam=chosen),f(q, both)
    assert close(a, b, pred)
    a.nan_to_num(0).sum().backward()
    b.nan_to_num(0).sum().backward()
    if b.isfinite().all(): assert close(p.grad, q.grad, pred)
    one = lam[:1]
    l,ends = MixUpLoss(f)(pred, y, yb1=y1, lam=one),torch.stack([f(pred, y),f(pred, y1)]).double()
    if ends.isfinite().all(): assert ((l>=ends.min(0)[0]-1e-5*(1+ends.abs().max()))&(l<=ends.max(0)[0]+1e-5*(1+ends.abs().max()))).all()

real = nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, partial(nn.HuberLoss, delta=.3), MSELossFlat, L1LossFlat
hot = nn.BCEWithLogitsLoss,BCEWithLogitsLossFlat,lambda reduction: partial(F.binary_cross_entropy_with_logits, reduction=reduction)
classes = (FocalLoss, partial(FocalLossFlat, gamma=1.), nn.MultiMarginLoss, LabelSmoothingCrossEntropy,
    partial(LabelSmoothingCrossEntropyFlat, eps=.3))

@many(200)
@given(st.data(), st.sampled_from((real,hot,classes)), st.sampled_from(('mean','sum','none')), st.integers(1, 5), st.integers(2, 4), seeds)
def test_other_losses(data, kind, reduction, B, C, seed):
    "Any other known loss is weighted sample by sample"
    g,f = gen(seed),data.draw(st.sampled_from(kind))(reduction=reduction)
    shape = (B,*data.draw(st.lists(st.integers(1, 3), max_size=2))) if kind is real else (B,C)
    pred,lam = torch.randn(shape, generator=g),torch.rand(B, generator=g)
    if kind is classes: y,y1 = torch.randint(C, (2,B), generator=g)
    else: y,y1 = torch.randn((2,*shape), generator=g) if kind is real else torch.rand((2,*shape), generator=g).round()
    loss = MixUpLoss(f)(pred, y, yb1=y1, lam=lam)
    parts = [l*f(pred[i:i+1], y[i:i+1]) + (1-l)*f(pred[i:i+1], y1[i:i+1]) for i,l in enumerate(lam)]
    want = torch.cat([o.flatten() for o in parts]) if reduction=='none' else sum(parts)/(B if reduction=='mean' else 1)
    assert close(loss, want, pred)
    one = MixUpLoss(f)(pred, y, yb1=y1, lam=lam[0].item())
    assert close(one, lam[0]*f(pred, y) + (1-lam[0])*f(pred, y1), pred)

@many(100)
@given(st.integers(1, 5), st.integers(2, 5), st.lists(st.integers(1, 3), max_size=2), st.sampled_from((0.,.2)), seeds)
def test_dense(B, C, shape, smooth, seed):
    "A dense target says what two labels and a lambda say"
    g = gen(seed)
    pred,lam,(y,y1) = torch.randn(B, C, *shape, generator=g),torch.rand(B, generator=g),torch.randint(C, (2,B,*shape), generator=g)
    t = mix_targets(y, y1, lam, C)
    assert t.shape==(B,C,*shape) and torch.allclose(t.sum(1), torch.ones(B, *shape))
    for i,c in itertools.product(range(B), range(C)):
        want = lam[i]*(y[i]==c) + (1-lam[i])*(y1[i]==c)
        assert torch.allclose(t[i,c], want, atol=1e-6)
    for f in (nn.CrossEntropyLoss(label_smoothing=smooth), CrossEntropyLossFlat(axis=1 if shape else -1, label_smoothing=smooth)):
        both = MixUpLoss(f)(pred, y, yb1=y1, lam=lam)
        assert close(dense_loss(f, pred, y, y1, lam), both, pred)
        assert close(both, F.cross_entropy(pred, t, label_smoothing=smooth), pred)

def _power(pred, y, reduction='mean'):
    l = (pred-y).abs()**1.5
    return l if reduction=='none' else getattr(l, reduction)()

class Own(nn.MSELoss):
    "A loss of one's own, whatever it inherits"
    def forward(self, pred, y): return _power(pred, y)

def test_unknown_losses():
    "A loss that is not known takes one lambda, exactly, and refuses one for each sample, though it has a reduction"
    pred,(y,y1) = torch.randn(4, 3),torch.randn(2, 4, 3)
    for f in (_power, Own(), partial(_power, reduction='sum'), lambda p,y: torch.dist(p, y)):
        for lam in (.3, torch.tensor([.3])):
            assert close(MixUpLoss(f)(pred, y, yb1=y1, lam=lam), .3*f(pred, y) + .7*f(pred, y1), pred)
        with pytest.raises(ValueError, match='Expected one lambda for the batch'): MixUpLoss(f)(pred, y, yb1=y1, lam=torch.rand(4))

def test_other_forms_of_cross_entropy():
    "What a cross-entropy is not told is what PyTorch's functions take, in each of its forms"
    pred,y,y1,lam = torch.randn(3, 4),torch.tensor([0,-100,3]),torch.tensor([1,2,-100]),torch.tensor([.8,.5,1.])
    for f in (F.cross_entropy, partial(F.cross_entropy, weight=None), nn.CrossEntropyLoss(), CrossEntropyLossFlat()):
        assert close(MixUpLoss(f)(pred, y, yb1=y1, lam=lam), slow_ce(pred, y, y1, lam), pred)
    for f in (F.nll_loss, nn.NLLLoss()): assert close(MixUpLoss(f)(pred.log_softmax(1), y, yb1=y1, lam=lam), slow_ce(pred, y, y1, lam), pred)

@pytest.mark.parametrize('shapes', (((3,4),(2,)), ((3,4),(5,)), ((3,4),(3,1)), ((3,4,2),(3,)), ((3,4,2),(3,3)), ((3,),(3,))))
def test_other_shapes_of_cross_entropy(shapes):
    "Targets that don't fit the predictions are refused in PyTorch's own words, fewer than there are predictions too"
    pred,y = torch.randn(shapes[0]),torch.zeros(shapes[1], dtype=torch.long)
    for f in (nn.CrossEntropyLoss(), F.nll_loss):
        with pytest.raises(Exception) as e: f(pred, y)
        for lam in (.5, torch.rand(len(y))):
            with pytest.raises(type(e.value), match=re.escape(str(e.value))): MixUpLoss(f)(pred, y, yb1=y.clone(), lam=lam)

@pytest.mark.parametrize('which', range(3))
def test_losses_are_plain(which):
    "A loss is a plain Tensor, also where fastai's own come in"
    args = torch.randn(3, 4),torch.tensor([0,1,2]),torch.tensor([1,2,0])
    own = [o.as_subclass((TensorImage,TensorMask,TensorMask)[i]) if i==which else o for i,o in enumerate(args)]
    plain,loss = (MixUpLoss(nn.CrossEntropyLoss())(p, y, yb1=y1, lam=torch.tensor([.8,.5,1.])) for p,y,y1 in (args,own))
    assert type(loss) is Tensor and torch.equal(loss, plain)
    if which: assert type(dense_loss(nn.CrossEntropyLoss(), *own, .3)) is Tensor

# Nested batches in a Learner

class Keep(nn.Module):
    "Remembers what it was given"
    def __init__(self, n_out=2):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_out))
    def forward(self, *xb):
        self.xb = xb
        return self.bias.expand(len(next(o for o in leaves(xb) if isinstance(o, Tensor) and o.ndim)), -1)

def nested(leaf):
    "Inputs as people have them: tensors in tuples, lists and dicts, with other things between"
    return st.recursive(leaf, lambda o: st.one_of(st.lists(o, min_size=1, max_size=3), st.lists(o, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from('abc'), o, min_size=1, max_size=3)), max_leaves=5)

def floating(o): return isinstance(o, Tensor) and o.is_floating_point() and o.ndim>0

@many(150)
@given(st.data(), st.integers(1, 5), st.sampled_from((MixUp,CutMix)), seeds)
def test_nested(data, n, cls, seed):
    "What floats is mixed, each leaf with the one pairing and lambda of its batch; what can't be mixed stays the very same object"
    g = gen(seed)
    tensors = st.integers(1, 3).map(lambda c: torch.randn(n, c, 4, 5, generator=g))
    others = st.sampled_from((None, 'text', 3j, True, torch.tensor(2.))) # a list of as many real numbers as samples is refused
    xb = data.draw(st.lists(nested(tensors|others), min_size=1, max_size=3).filter(lambda o: any(map(floating, leaves(o)))))
    yb = (torch.randint(2, (n,), generator=g),)
    copies = [o.clone() if isinstance(o, Tensor) else o for o in leaves(xb)]
    dls = DataLoaders([(*xb,*yb)], [], device='cpu')
    dls.n_inp = len(xb)
    torch.manual_seed(seed)
    learn = Learner(dls, Keep(), loss_func=nn.CrossEntropyLoss(), cbs=[TrainEvalCallback, cls(1.)], default_cbs=False)
    learn.fit(1)
    mixer = learn.cbs[1]
    assert pytree.tree_structure(learn.model.xb)==pytree.tree_structure(tuple(xb))
    for old,copy,new in zip(leaves(xb), copies, leaves(learn.model.xb)):
        if not floating(old):
            assert new is old
            continue
        assert same(old, copy)
        lam,boxes = mixer.lam.expand(n),None if cls is MixUp else mixer.boxes.expand(n, -1, -1)
        for i,j in enumerate(mixer.perm):
            want = lam[i]*old[i] + (1-lam[i])*old[j] if cls is MixUp else torch.where(inside(boxes[i].tolist(), (4,5)), old[j], old[i])
            assert torch.allclose(new[i], want, atol=1e-5)

def several(pred, *ys):
    "A loss on any number of targets, classes and quantities"
    return sum(((pred.mean(1)-y)**2).mean() if y.is_floating_point() else F.cross_entropy(pred, y) for y in ys)

class CheckSeveral(Callback):
    "With a loss of one's own all targets are kept beside their partners', and the loss is that of both, by one lambda"
    order,n = 100,0
    def __init__(self, plain, mixer): self.plain,self.mixer = plain,mixer
    def after_loss(self):
        m = self.mixer
        partners = [y[m.perm] for y in self.plain]
        assert len(m.lam)==1 and all(a is b for a,b in zip(self.yb, self.plain))
        want = m.lam[0]*several(self.pred, *self.plain) + (1-m.lam[0])*several(self.pred, *partners)
        assert torch.allclose(self.loss, want, atol=1e-5)
        self.n += 1

@many(60)
@given(st.lists(st.booleans(), min_size=1, max_size=4), st.integers(1, 5), st.sampled_from((MixUp,CutMix)), seeds)
def test_several_targets(kinds, n, cls, seed):
    "Any number of targets of either kind"
    g = gen(seed)
    yb = [torch.randn(n, generator=g) if o else torch.randint(3, (n,), generator=g) for o in kinds]
    batch = torch.randn(n, 1, 3, 4, generator=g),*yb
    dls = DataLoaders([batch]*2, [], device='cpu')
    dls.n_inp = 1
    torch.manual_seed(seed)
    model,check = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),CheckSeveral(yb, cls(1.))
    Learner(dls, model, loss_func=several, cbs=[TrainEvalCallback, check.mixer, check], default_cbs=False).fit(1, 0.)
    assert check.n==2

@pytest.mark.parametrize('bad', ('text', 3, torch.tensor(3), torch.arange(5)))
def test_several_targets_of_one_batch(bad):
    "What is no target for each sample is refused in words"
    dls = DataLoaders([(torch.randn(4, 1, 3, 4),torch.arange(4)%3,bad)], [], device='cpu')
    dls.n_inp = 1
    for cls in (MixUp,CutMix):
        learn = Learner(dls, Keep(), loss_func=several, cbs=[TrainEvalCallback,cls()], default_cbs=False)
        with pytest.raises(ValueError, match='Expected targets as Tensors for 4 samples'): learn.fit(1)

@pytest.mark.parametrize('xb,error,said', (((torch.ones(4, 5).long(),), TypeError, 'torch.int64 of shape .4, 5.: use MixUp for indices'),
    ((torch.rand(4, 3)>.5,'text'), ValueError, r"input that can be mixed, but got torch.bool of shape .4, 3., str")))
def test_several_inputs(xb, error, said):
    "Inputs that can't be mixed are refused, and named"
    dls = DataLoaders([(*xb,torch.arange(4)%2)], [], device='cpu')
    dls.n_inp = len(xb)
    learn = Learner(dls, Keep(), loss_func=several, cbs=[TrainEvalCallback,CutMix()], default_cbs=False)
    with pytest.raises(error, match=said): learn.fit(1)

@many(100)
@given(nested(st.integers()))
def test_leaves(o):
    "Structures are taken apart and put together again"
    flat = leaves(o)
    assert rebuild(o, flat)==o
    assert leaves(rebuild(o, range(len(flat))))==list(range(len(flat)))
    assert n_samples((o,), (o,))==0 # there is no Tensor

@pytest.mark.parametrize('size', ((), (5,), (4,5), (2,4,5), (3,2,4,5)))
def test_leaves_over_others(size):
    "Masks over signals, images and volumes are told by their size, with channels or without; an index has samples"
    masks = [torch.zeros(8, *size),torch.zeros(8, 1, *size)]
    assert [lies_over(y, size) for y in masks]==[1<=len(size)<=3]*2
    for y in (torch.zeros(8), torch.zeros(8, 7), torch.zeros(8, *size[:-1], 7), torch.zeros(8, *[o+1 for o in size[:1]], *size[1:])):
        assert not lies_over(y, size) or y.shape==masks[0].shape
    assert is_index(torch.tensor([3])) and not is_index(torch.tensor(3))
    other = torch.zeros(8, *[o+1 for o in size[:-1]], *size[-1:]).long() # as a mask of another size
    if len(size) in (2,3):
        with pytest.raises(ValueError, match='masks with the sizes'): check_mask(other, size)
    else: check_mask(torch.zeros(8, 7).long(), size)

# Draws

def fits(counts, expected, least=1e-4):
    "Do the counts follow the expected ones? Cells that are too rare for the test are taken together"
    counts,expected = np.asarray(counts, float),np.asarray(expected, float)
    expected = expected*counts.sum()/expected.sum()
    rare = expected<5
    assert not counts[expected==0].any()
    if rare.any(): counts,expected = (np.append(o[~rare], o[rare].sum()) for o in (counts,expected))
    keep = expected>0
    return stats.chisquare(counts[keep], expected[keep]).pvalue>least

@many(100)
@given(st.integers(1, 300), seeds)
def test_one_cycle(n, seed):
    "The pairing is one walk around the whole batch"
    perm = draw_perm(n, generator=gen(seed)).tolist()
    at,steps = perm[0],1
    while at: at,steps = perm[at],steps+1
    assert steps==n and sorted(perm)==list(range(n))
    if n>1: assert all(i!=j for i,j in enumerate(perm))
    if n>2: assert all(perm[j]!=i for i,j in enumerate(perm))

@pytest.mark.parametrize('n', (2,3,4,5,6))
def test_cycles(n):
    "All cycles are equally likely"
    torch.manual_seed(n)
    counts = Counter(tuple(draw_perm(n).tolist()) for _ in range(40*math.factorial(n-1)))
    assert len(counts)==math.factorial(n-1) and (n<3 or fits([*counts.values()], [1]*len(counts)))

@pytest.mark.parametrize('dedup', (False,True))
@pytest.mark.parametrize('alpha', (1e-4,1e-2,.1,.4,1,2,30,1e3))
def test_beta(alpha, dedup):
    "Lambdas follow Beta(alpha, alpha), folded at a half with `dedup`, each drawn for itself"
    n,beta = 40_000,stats.beta(alpha, alpha)
    t = draw_lam(n, alpha, dedup, generator=gen(int(alpha*100)+dedup)).double()
    edges = np.unique(np.concatenate([beta.ppf(np.linspace(.02, .98, 25)), [1e-30,1e-6,1e-2,.1,.3,.5,.7,.9,.99,1-1e-6]]))
    edges = edges[(edges>1e-35)&(edges<=1-1e-6)]
    if dedup: edges = edges[edges>=.5]
    cdf = beta.cdf(edges)*2-1 if dedup else beta.cdf(edges)
    probs = np.diff(np.concatenate([[0],cdf,[1]]))
    cells = np.digitize(t, edges)
    assert fits(np.bincount(cells, minlength=len(probs)), probs)
    if dedup and alpha<.1: return
    high = t>(beta.ppf(.75) if dedup else .5)
    assert fits((high[::2].int()*2 + high[1::2].int()).bincount(minlength=4), [1,1,1,1])

def place_odds(s, side, where):
    "How likely each `[lo, hi)` is, clipped, from what each way to place a box promises"
    if where=='inside': return {(lo,lo+side):1. for lo in range(s-side+1)}
    odds = Counter()
    for lo in range(-side-1, s+1):
        near = max(0., min(s, lo+side/2+.5)-max(0., lo+side/2-.5)) if where=='centre' else float(1-side<=lo<s)
        odds[(min(max(lo, 0), s),min(max(lo+side, 0), s))] += near
    return odds

@pytest.mark.parametrize('where', ('centre','uniform','inside'))
def test_places(where):
    "Boxes are where they ought to be: centre anywhere, every pixel equally covered, or inside; each dimension and sample for itself"
    n,size = 20_000,(7,10)
    side = [torch.full((50,), 4.)]
    if where=='centre': assert torch.equal(place_boxes((9,), side, generator=gen(0)), place_boxes((9,), side, where, gen(0)))
    for sides in ((1,2),(3,4),(4,7),(7,10)):
        boxes = place_boxes(size, [torch.full((n,), float(o)) for o in sides], where, gen(sides[0]))
        for d,(s,side) in enumerate(zip(size, sides)):
            odds,counts = place_odds(s, side, where),Counter(map(tuple, boxes[:,d].tolist()))
            assert set(counts)=={k for k,v in odds.items() if v>0}
            if len(counts)>1: assert fits([counts[k] for k in odds], [*odds.values()])
            if where=='uniform':
                covered = [((boxes[:,d,0]<=k)&(k<boxes[:,d,1])).double().mean() for k in range(s)]
                assert all(abs(o-side/(s+side-1))<4.5*math.sqrt(.25/n) for o in covered)
        lo = boxes[...,0]
        for a,b in ((lo[:,0],lo[:,1]), (lo[:-1:2,0],lo[1::2,0])):
            table = torch.zeros(a.max()+1, b.max()+1).index_put_((a,b), torch.ones(len(a)), accumulate=True)
            table = table[table.sum(1)>0][:,table.sum(0)>0]
            if min(table.shape)>1: assert stats.chi2_contingency(table.numpy()).pvalue>1e-4

def test_drawn_elsewhere():
    "A generator may be on another device than the batch: draws go to the batch"
    x,g = torch.zeros(4, 3, 8, 9, device='meta'),gen(0)
    drawn = [draw_perm(4, 'meta', g),draw_lam(4, .4, device='meta', generator=g),draw_boxes((8,9), x[:,0,0,0], generator=g)]
    drawn += mixup_batch(x, generator=g)[::2]
    for kw in ({}, dict(length=.5), dict(minmax=(.2,.5)), dict(lam=.5)): drawn += cutmix_batch(x, generator=g, **kw)[::2]
    assert {o.device.type for o in drawn}=={'meta'}
    assert draw_perm(4, generator=g).device==draw_lam(4, 1., generator=g).device==g.device

@pytest.mark.parametrize('dims', (1,2,3))
def test_box_sizes(dims):
    "Before clipping a box covers `1-lam` of the image, the same share of every side"
    size = (200,300,400)[:dims]
    lam = draw_lam(3000, 1., dedup=False, generator=gen(1))
    boxes = draw_boxes(size, lam, generator=gen(2))
    free = ((boxes[...,0]>0)&(boxes[...,1]<torch.tensor(size))).all(1)
    sides = (boxes[...,1]-boxes[...,0])[free]
    assert len(sides)>100 and (sides-(1-lam[free,None])**(1/dims)*torch.tensor(size)).abs().max()<=.5+1e-3
    drawn = cutmix_batch(torch.zeros(3000, 1, *(20,30,4)[:dims]), minmax=(.2,.6), generator=gen(3))[3]
    for d,s in enumerate((20,30,4)[:dims]):
        ks = [max(1, round((.2+.4*u)*s)) for u in np.linspace(0, 1, 20_001)]
        counts = Counter((drawn[:,d,1]-drawn[:,d,0]).tolist())
        assert set(counts)<=set(ks) and fits([counts[k] for k in sorted(set(ks))], [ks.count(k) for k in sorted(set(ks))])
    if dims>1: assert abs(np.corrcoef(*(drawn[:,:2,1]-drawn[:,:2,0]).T.numpy())[0,1])<.08

@pytest.mark.parametrize('where', ('centre','uniform','inside'))
def test_boxes_in_long_signals(where):
    "Sides are exact also where float32 has no room left for halves, as in a recording of millions of samples"
    s,side = 2**24,2**23-2
    lo,hi = place_boxes((s,), [torch.full((1000,), float(side))], where, gen(0))[:,0].T
    free = (lo>0)&(hi<s)
    assert free.sum()>200 and (hi-lo==side)[free].all()

def test_smallest_boxes():
    "Sides between two shares are a pixel at least, in small images too"
    *_,lam,boxes = cutmix_batch(torch.rand(500, 1, 8, 8), minmax=(.01,.05), generator=gen(0))
    assert (boxes[...,1]-boxes[...,0]).unique().tolist()==[1] and same(lam, torch.full((500,), 63/64))

class Turned(nn.Module):
    "Looks its tokens up as `how` makes them"
    def __init__(self, how):
        super().__init__()
        self.how,self.emb = how,nn.Embedding(50, 3)
    def forward(self, x):
        e = self.emb(dict(column=x[:,:,None], turned=x.t().contiguous(), typed=x.int(), more=x+1)[self.how])
        return (e[:,:,0] if self.how=='column' else e.transpose(0, 1) if self.how=='turned' else e).flatten(1)

@pytest.mark.parametrize('how', ('column','turned','typed','more'))
@pytest.mark.parametrize('n', (5,7))
def test_copied_tokens(how, n):
    "Indices are mixed behind the embedding in a column, turned (the square batch too), in another type and changed on the way"
    x = torch.arange(n*5).view(n, 5)
    model,y = Turned(how),torch.zeros(n, 15)
    want = model(x).detach()
    preds,mixer = [],MixUp(1.)
    cbs = [TrainEvalCallback,mixer,Callback(after_loss=lambda self: preds.append(self.pred))]
    Learner(DataLoaders([(x,y)], [], device='cpu'), model, loss_func=nn.MSELoss(), cbs=cbs, default_cbs=False).fit(1, 0.)
    lam = mixer.lam[:,None]
    torch.testing.assert_close(preds[0], lam*want + (1-lam)*want[mixer.perm])
    assert (lam<1).all()

def test_default_dtype():
    "Lambda is float32 whatever PyTorch's default is"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        drawn = [draw_lam(3, 0),draw_lam(3, .4),mixup_batch(torch.rand(3, 2), lam=.5)[2]]
        drawn += [cutmix_batch(torch.rand(3, 1, 4), **kw)[2] for kw in ({}, dict(length=.5), dict(lam=.5))]
    finally: torch.set_default_dtype(before)
    assert {o.dtype for o in drawn}=={torch.float32}
