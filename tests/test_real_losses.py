"""Losses that people train with, from PyPI and of one's own: each in five batches, of which the first and the last are clean and the
others are not

A known loss has a lambda for each sample and the exact mean over all entries, computed here in float64. Every other loss has one lambda a
batch, `lam*L(y) + (1-lam)*L(y1)`, by two plain calls of it, and that is said once. One floating point target is interpolated by known losses alone."""
import sys, threading, pytest, torch, torch.nn.functional as F
from functools import partial
from torch import nn
from fastai.losses import (BCEWithLogitsLossFlat, CrossEntropyLossFlat, DiceLoss, FocalLoss, FocalLossFlat, L1LossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat, MSELossFlat)
from fastmix.all import MixUp, MixUpLoss
from oracle import lerp, message, raised_by_us, told, watch

N,C,S = 8,4,6 # samples in a batch, classes, sides of a mask
CLEAN = 0,4   # batches without ignored labels or rare classes

# Batches

def balanced(*shape, k=C):
    "Classes, each as often as the others"
    n = torch.Size(shape).numel()
    return (torch.arange(n)%k)[torch.randperm(n)].view(shape)

def rare(*shape, k=C):
    "All of one class but for one entry"
    y = torch.zeros(shape).long()
    y.view(-1)[torch.randint(y.numel(), ())] = k-1
    return y

def labels(*shape, k=C, ignore=None):
    "Five batches of classes of `shape`: two of them rare, one with ignored entries too, or rare as well"
    res = [balanced(N, *shape, k=k), rare(N, *shape, k=k), balanced(N, *shape, k=k), rare(N, *shape, k=k), balanced(N, *shape, k=k)]
    if ignore is not None: res[2][:3],res[3].view(-1)[:5] = ignore,ignore
    return [(o,) for o in res]

def zeros_and_ones(*shape, dtype=torch.float):
    "Five batches of zeros and ones, half of each in the clean ones"
    return [(o.to(dtype),) for o, in labels(*shape, k=2)]

def quantities(*shape): return [(torch.randn(N, *shape)*s,) for s in (1,100,1,.01,1)]
def weighted(*shape):
    "Classes, and a weight for each sample, the same for all in the clean batches"
    ws = [torch.rand(N)*5 if i not in CLEAN else torch.ones(N) for i in range(5)]
    for w in ws[1:4]: w[::3] = 0.
    return [(y,w) for (y,),w in zip(labels(*shape), ws)]

def net(*shape):
    "A model with predictions of `shape` for each sample"
    return nn.Sequential(nn.Linear(6, torch.Size(shape).numel()), nn.Unflatten(1, shape))

def batches(ys): return [(torch.randn(N, 6), *y) for y in ys]

# The two right values

def floats(y): return len(y)==1 and y[0].is_floating_point()

def by_two_calls(loss, b):
    "`lam*L(y) + (1-lam)*L(y1)`"
    lam = b.lam[0]
    return lam*loss(b.pred, *b.y) + (1-lam)*loss(b.pred, *b.y1)

def by_entries(num_den, pred, y, y1, lam, reduction='mean'):
    "The exact mean over the entries of all samples: `num_den(pred, *y)` gives losses and weights of the entries of one sample, in float64"
    pred,num,den,each = pred.double(),0.,0.,[]
    for i in range(len(pred)):
        l = lam[i].double()
        of = lambda ys: num_den(pred[i], *[t[i].double() if t.is_floating_point() else t[i] for t in ys])
        (a,wa),(c,wc) = of(y),of(y1)
        num,den = num + (l*a + (1-l)*c).sum(),den + (l*wa + (1-l)*wc).sum()
        each.append(l*a + (1-l)*c)
    return num if reduction=='sum' else num/len(pred) if reduction=='batchmean' else torch.stack(each) if reduction=='none' else num/den

def check(log, right, n_lam):
    "All five batches were trained, each with the loss `right(batch)`"
    assert log.error is None, f'stopped in batch {len(log.batches)}: {message(log.error)}'
    assert len(log.batches)==5
    for k,b in enumerate(log.batches):
        want = right(b).detach()
        torch.testing.assert_close(b.loss.double(), want.double(), rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m: f'batch {k}: {m}')
        assert n_lam is None or b.n_lam==n_lam, f'batch {k} has {b.n_lam} lambdas, expected {n_lam}'

def name_of(loss):
    if isinstance(loss, partial): loss = loss.func
    return getattr(loss, '__name__', type(loss).__name__)

# Losses of packages, and of one's own, that are known by nothing but their numbers

def probs(p): return p.softmax(1)
class Soft(nn.Module):
    "`f` of probabilities"
    def __init__(self, f): super().__init__(); self.f = f
    def forward(self, p, *y): return self.f(p.softmax(1), *y)
class Squeezed(nn.Module):
    "`f` of a mask with no dimension for channels"
    def __init__(self, f): super().__init__(); self.f = f
    def forward(self, p, y): return self.f(p, y.squeeze(1))

P,M1,B1 = (C,S,S),(1,S,S),(1,S,S) # predictions of pixels; masks with a channel
pix,pix1,bin1,cls,multi = partial(labels, S, S),partial(labels, *M1),partial(labels, *B1, k=2),labels,partial(zeros_and_ones, C)
images = partial(quantities, 1, 12, 12)
def unit_images(): return [(torch.rand(N, 1, 12, 12)*s,) for s in (1,.1,1,.5,1)]

def of(package, **rows): return [(package,k.replace('_',' '),*v) for k,v in rows.items()]
PACKAGES = [
    *of('segmentation_models_pytorch.losses',
        dice =(lambda m: m.DiceLoss('multiclass'), P, pix),
        dice_without_ignored_pixels=(lambda m: m.DiceLoss('multiclass', ignore_index=255), P, partial(pix, ignore=255)),
        dice_of_two_classes=(lambda m: m.DiceLoss('binary'), B1, bin1),
        dice_of_some_classes=(lambda m: m.DiceLoss('multiclass', classes=[1,3]), P, pix),
        logarithm_of_jaccard=(lambda m: m.JaccardLoss('multiclass', log_loss=True), P, pix),
        tversky=(lambda m: m.TverskyLoss('multiclass', alpha=.3, beta=.7, gamma=1.3), P, pix),
        lovasz=(lambda m: m.LovaszLoss('multiclass'), P, pix),
        lovasz_of_two_classes=(lambda m: m.LovaszLoss('binary'), B1, bin1),
        focal=(lambda m: m.FocalLoss('multiclass'), P, pix),
        focal_without_ignored_pixels=(lambda m: m.FocalLoss('multiclass', ignore_index=255), P, partial(pix, ignore=255)),
        focal_normalized=(lambda m: m.FocalLoss('binary', alpha=.3, normalized=True), B1, bin1),
        cross_entropy_without_ignored_pixels=(lambda m: m.SoftCrossEntropyLoss(smooth_factor=.1, ignore_index=255), P,
            partial(pix, ignore=255)),
        matthews=(lambda m: m.MCCLoss(), B1, bin1),
        binary_cross_entropy_of_floats=(lambda m: m.SoftBCEWithLogitsLoss(pos_weight=torch.tensor([3.])), B1,
            partial(zeros_and_ones, *B1))),
    *of('monai.losses',
        dice=(lambda m: m.DiceLoss(softmax=True, to_onehot_y=True), P, pix1),
        dice_of_the_batch_with_weights=(lambda m: m.DiceLoss(softmax=True, to_onehot_y=True, batch=True, weight=[1.,2.,5.,9.]), P, pix1),
        dice_without_ignored_pixels=(lambda m: m.DiceLoss(softmax=True, to_onehot_y=True, ignore_index=3), P, pix1),
        dice_and_cross_entropy=(lambda m: m.DiceCELoss(softmax=True, to_onehot_y=True, weight=torch.tensor([1.,2.,5.,9.])), P, pix1),
        dice_and_focal=(lambda m: m.DiceFocalLoss(softmax=True, to_onehot_y=True), P, pix1),
        generalized_dice=(lambda m: m.GeneralizedDiceLoss(softmax=True, to_onehot_y=True), P, pix1),
        generalized_dice_and_focal=(lambda m: m.GeneralizedDiceFocalLoss(softmax=True, to_onehot_y=True), P, pix1),
        focal=(lambda m: m.FocalLoss(to_onehot_y=True, use_softmax=True, weight=[1.,2.,5.,9.]), P, pix1),
        focal_without_ignored_pixels=(lambda m: m.FocalLoss(to_onehot_y=True, use_softmax=True, ignore_index=3), P, pix1),
        tversky=(lambda m: m.TverskyLoss(softmax=True, to_onehot_y=True, alpha=.3, beta=.7), P, pix1),
        asymmetric_unified_focal=(lambda m: Soft(m.AsymmetricUnifiedFocalLoss(to_onehot_y=True)), (2,S,S), bin1),
        matthews=(lambda m: m.MCCLoss(softmax=True, to_onehot_y=True), P, pix1),
        centerlines=(lambda m: m.SoftDiceclDiceLoss(softmax=True, to_onehot_y=True), P, pix1),
        calibrated=(lambda m: m.NACLLoss(classes=C, dim=2), P, pix),
        hausdorff=(lambda m: m.HausdorffDTLoss(softmax=True, to_onehot_y=True), P, pix1),
        dice_within_a_mask=(lambda m: m.MaskedDiceLoss(sigmoid=True), B1,
            lambda: [(y.float(),(torch.rand(N, *B1)<.6).float()) for y, in bin1()]),
        structural_similarity=(lambda m: m.SSIMLoss(spatial_dims=2, win_size=5), (1,12,12), unit_images),
        cross_correlation=(lambda m: m.LocalNormalizedCrossCorrelationLoss(spatial_dims=2), (1,12,12), unit_images)),
    *of('timm.loss',
        label_smoothing=(lambda m: m.LabelSmoothingCrossEntropy(.1), (C,), cls),
        poly=(lambda m: m.PolyCrossEntropy(), (C,), cls),
        asymmetric=(lambda m: m.AsymmetricLossSingleLabel(), (C,), cls),
        binary=(lambda m: m.BinaryCrossEntropy(.1, pos_weight=3.), (C,), cls),
        binary_with_a_sum_over_classes=(lambda m: m.BinaryCrossEntropy(.1, sum_classes=True), (C,), cls),
        soft_targets=(lambda m: m.SoftTargetCrossEntropy(), (C,), lambda: [(F.one_hot(y, C).float(),) for y, in cls()]),
        several_labels_asymmetric=(lambda m: m.AsymmetricLossMultiLabel(), (C,), multi),
        several_labels_two_ways=(lambda m: m.TwoWayLoss(), (C,), partial(zeros_and_ones, C, dtype=torch.long))),
    *of('kornia.losses',
        focal=(lambda m: m.FocalLoss(.5, reduction='mean'), P, pix),
        focal_with_weights_without_ignored_pixels=(lambda m: m.FocalLoss(.5, reduction='mean', weight=torch.tensor([1.,2.,5.,9.]),
            ignore_index=255), P,
            partial(pix, ignore=255)),
        dice=(lambda m: m.DiceLoss(), P, pix),
        dice_of_each_class_without_ignored_pixels=(lambda m: m.DiceLoss(average='macro', ignore_index=255), P, partial(pix, ignore=255)),
        tversky=(lambda m: m.TverskyLoss(.3, .7), P, pix),
        lovasz_softmax=(lambda m: m.LovaszSoftmaxLoss(), P, pix),
        lovasz_hinge=(lambda m: Squeezed(m.LovaszHingeLoss()), B1, bin1),
        focal_of_two_classes=(lambda m: m.BinaryFocalLossWithLogits(.25, reduction='mean'), B1, bin1),
        hausdorff=(lambda m: m.HausdorffERLoss(k=3), P, pix1),
        charbonnier=(lambda m: m.CharbonnierLoss('mean'), (3,), partial(quantities, 3)),
        structural_similarity=(lambda m: m.SSIMLoss(3), (1,12,12), unit_images),
        welsch=(lambda m: m.WelschLoss('sum'), (3,), partial(quantities, 3)))]

@pytest.mark.parametrize('package,name,make,shape,ys', PACKAGES, ids=[f"{o[0].split('.')[0]}: {o[1]}" for o in PACKAGES])
def test_a_loss_of_a_package(package, name, make, shape, ys):
    "It trains from the first to the last batch with one lambda a batch, said once, and an unmixed batch has its plain loss"
    loss,ys,model = make(pytest.importorskip(package, exc_type=ImportError)),ys(),net(*shape)
    for alpha in (8.,0.):
        log = watch(model, batches(ys), loss, MixUp(alpha))
        check(log, partial(by_two_calls, loss), 1)

# Look-alikes of known losses

W = torch.tensor([1.,2.,5.,9.])
class Sub(nn.CrossEntropyLoss): "A subclass that changes nothing"
class Late(nn.CrossEntropyLoss):
    "Divides by a temperature when it is called"
    def __call__(self, p, y): return super().__call__(p/4, y)
class Squeezing(nn.CrossEntropyLoss):
    "A subclass with a forward of its own"
    def forward(self, p, y): return super().forward(p, y.long())
class FlatSub(CrossEntropyLossFlat):
    def __call__(self, p, y, **kw): return super().__call__(p*2, y, **kw)
class Summed(nn.modules.loss._Loss):
    "One number, whatever its `reduction` says"
    def forward(self, p, y):
        q,o = p.softmax(1),F.one_hot(y, C).movedim(-1,1)
        return 1-2*(q*o).sum()/(q+o).sum()
class ByClass(nn.Module):
    "A number for each class, where there are as many classes as samples"
    def __init__(self): super().__init__(); self.reduction = 'mean'
    def forward(self, p, y):
        q,o = p.softmax(1),F.one_hot(y, N).movedim(-1,1)
        l = 1-2*(q*o).sum((0,2,3))/(q+o).sum((0,2,3))
        return l if self.reduction=='none' else l.mean()
class Both(nn.Module):
    "Cross-entropy and Dice"
    def __init__(self): super().__init__(); self.ce,self.dice = nn.CrossEntropyLoss(W),Summed()
    def forward(self, p, y): return self.ce(p, y)+self.dice(p, y)
def labelled(p, y, reduction='mean'): return F.cross_entropy(p, y, ignore_index=255, reduction=reduction)
def of_labelled_classes(p, y, reduction='mean'): return F.cross_entropy(p, y, W, reduction=reduction)
def by_weights(p, y, w, reduction='mean'):
    l = w*F.cross_entropy(p, y, reduction='none')
    return l.sum()/w.sum().clamp(min=1) if reduction=='mean' else l
def says_it_is_torch(p, y, reduction='mean'): return F.cross_entropy(p, y, W, reduction=reduction)
says_it_is_torch.__module__ = 'torch.nn.functional'
def hooked():
    loss = nn.CrossEntropyLoss(W)
    loss.register_forward_hook(lambda m, args, out: out*2)
    return loss
def forward_replaced():
    loss = nn.CrossEntropyLoss(W)
    loss.forward = lambda p, y: F.cross_entropy(p/3, y, W)
    return loss
def parametrized():
    "Cross-entropy whose weights are learned"
    class Learned(nn.CrossEntropyLoss):
        def __init__(self): super().__init__(); self.t = nn.Parameter(torch.tensor(3.))
        def forward(self, p, y): return super().forward(p*self.t, y)
    return Learned()
class Unlabelled(nn.Module):
    "Ignores what is -1, in a mean of its own"
    def __init__(self, reduction='mean'): super().__init__(); self.reduction = reduction
    def forward(self, p, y):
        l,known = F.cross_entropy(p, y.clamp(min=0), reduction='none'),y>=0
        return (l*known).sum()/known.sum() if self.reduction=='mean' else l*known
class Scaled(nn.Module):
    "Weights classes by how rare they are in the batch"
    reduction = 'mean'
    def forward(self, p, y):
        n = torch.bincount(y.flatten(), minlength=C).float()
        l = F.cross_entropy(p, y, (n.sum()/n.clamp(min=1))/C, reduction='none')
        return l if self.reduction=='none' else l.mean()
def ctc(p, y, n_in, n_out): return F.ctc_loss(p.transpose(0, 1).log_softmax(-1), y, n_in, n_out)
def texts():
    ns = [torch.full((N,), 4) if i in CLEAN else torch.randint(1, 5, (N,)) for i in range(5)]
    return [(torch.randint(1, 5, (N,4)),torch.full((N,), 12),n) for n in ns]
class Texts(nn.CTCLoss):
    def forward(self, p, *y): return super().forward(p.transpose(0, 1).log_softmax(-1), *y)

ign = partial(labels, ignore=255)
OWN = dict(
    a_subclass_of_cross_entropy=(lambda: Sub(W, ignore_index=255), (C,), ign),
    a_subclass_with_a_call_of_its_own=(lambda: Late(W), (C,), cls),
    a_subclass_with_a_forward_of_its_own=(lambda: Squeezing(W), (C,), cls),
    a_subclass_of_a_flattening_wrapper=(lambda: FlatSub(weight=W), (C,), cls),
    cross_entropy_with_a_hook=(hooked, (C,), cls),
    cross_entropy_with_another_forward=(forward_replaced, (C,), cls),
    cross_entropy_with_a_parameter=(parametrized, (C,), cls),
    cross_entropy_compiled=(lambda: torch.compile(nn.CrossEntropyLoss(W), backend='eager'), (C,), cls),
    cross_entropy_with_a_deprecated_keyword=(lambda: partial(F.cross_entropy, size_average=False), (C,), cls),
    cross_entropy_of_two_dimensions=(lambda: nn.NLLLoss2d(W), P, pix),
    a_function_that_ignores_some=(lambda: labelled, P, partial(pix, ignore=255)),
    a_function_with_class_weights=(lambda: of_labelled_classes, (C,), cls),
    a_function_that_names_the_module_of_torch=(lambda: says_it_is_torch, (C,), cls),
    a_lambda=(lambda: lambda p, y: F.cross_entropy(p, y, W), (C,), cls),
    a_class_that_ignores_some=(Unlabelled, (C,), partial(labels, ignore=-1)),
    a_class_that_weights_by_the_batch=(Scaled, (C,), cls),
    weights_for_each_sample=(lambda: by_weights, (C,), weighted),
    one_number_whatever_the_reduction=(Summed, P, pix),
    a_number_for_each_class=(ByClass, (N,S,S), partial(labels, S, S, k=N)),
    a_sum_of_two=(Both, P, pix),
    dice_of_fastai=(lambda: DiceLoss(), P, pix),
    ctc_as_a_function=(lambda: ctc, (12,5), texts),
    ctc_as_a_subclass=(lambda: Texts(), (12,5), texts),
    cross_entropy_with_a_layer_in_it=(lambda: nn.LinearCrossEntropyLoss(5, C, weight=W), (5,), cls))
if not hasattr(nn, 'LinearCrossEntropyLoss'): OWN.pop('cross_entropy_with_a_layer_in_it')
own = pytest.mark.parametrize('make,shape,ys', OWN.values(), ids=[k.replace('_',' ') for k in OWN])

@own
def test_a_loss_of_ones_own(make, shape, ys):
    "One lambda a batch, from the first batch on, however much the loss looks like a known one"
    loss,ys,model = make(),ys(),net(*shape)
    for alpha in (8.,0.): check(watch(model, batches(ys), loss, MixUp(alpha)), partial(by_two_calls, loss), 1)

@own
def test_one_lambda_is_said_once_and_by_name(make, shape, ys):
    "Before anything is mixed, so that nobody has to guess"
    loss = make()
    log = watch(net(*shape), batches(ys()), loss, MixUp(8.), epochs=2)
    said = [o for o in told(log.warned) if 'lam' in o]
    assert log.error is None and len(said)==1 and name_of(loss) in said[0], said
    assert log.batches[0].n_said>=1

@own
def test_a_lambda_for_each_sample_is_refused_in_words(make, shape, ys):
    "By a mixer with per_sample=True, and by MixUpLoss. The words show how to weigh samples oneself"
    loss,ys = make(),ys()
    log = watch(net(*shape), batches(ys), loss, MixUp(8., per_sample=True))
    assert not log.batches and isinstance(log.error, ValueError) and raised_by_us(log.error), log.error
    assert 'per_sample' in message(log.error)
    pred,y,perm = torch.randn(N, *shape),ys[1],torch.arange(N).roll(1)
    y1 = tuple(t[perm] for t in y)
    with pytest.raises(ValueError, match='lam'): MixUpLoss(loss)(pred, *y, yb1=y1, lam=torch.linspace(.5, 1, N))
    lam = torch.tensor([.7])
    torch.testing.assert_close(MixUpLoss(loss)(pred, *y, yb1=y1, lam=lam), .7*loss(pred, *y) + .3*loss(pred, *y1))

# Known losses

def ce(weight=None, ignore=-100, smooth=0., log_probs=False):
    "Cross-entropy of one sample: losses times weights, and weights, of its entries"
    def f(p, y):
        logp,y = (p if log_probs else p.log_softmax(0)),y.reshape(-1)
        logp = logp.reshape(len(logp), -1)
        w = torch.ones(len(logp)).double() if weight is None else weight.double()
        num,den = torch.zeros(len(y)).double(),torch.zeros(len(y)).double()
        for s,t in enumerate(y.tolist()):
            if t==ignore: continue
            num[s] = -(1-smooth)*w[t]*logp[t,s] - smooth/len(logp)*(w*logp[:,s]).sum()
            den[s] = w[t]
        return num,den
    return f

def focal(gamma):
    def f(p, y):
        t = p.log_softmax(0)[y]
        return -(1-t.exp())**gamma*t,torch.ones(()).double()
    return f

def entry(f):
    "A loss of each entry, all of one weight"
    def g(p, *y):
        l = f(p, *y)
        return l,torch.ones_like(l)
    return g

def multi_margin(p, y): # of all other classes, over their number, with the weight of the own
    o = (1-p[y]+p).clamp(min=0)
    return W.double()[y]*(o.sum()-1)/C
def multi_label_margin(p, y):
    own = y[:(y<0).long().argmax()] if (y<0).any() else y
    return sum((1-(p[i]-p[j])).clamp(min=0) for i in own.tolist() for j in range(C) if j not in own.tolist())/C
def log_sigmoid(p): return -torch.log1p(torch.exp(-p))

def signs(*shape): return [(o*2-1,) for o, in zeros_and_ones(*shape)]
def some(k): return torch.cat([torch.randperm(C)[:k],torch.full((C-k,), -1)])
def several(): return [(torch.stack([some(k) for k in torch.randint(1, C, (N,)).tolist()]),) for _ in range(5)]
def shares(): return [(torch.rand(N, C).softmax(1),) for _ in range(5)]
def logp(m, dim=1): return nn.Sequential(m, nn.LogSoftmax(dim))

KNOWN = dict( # loss, model, targets, entries, reduction
    cross_entropy=(nn.CrossEntropyLoss(), net(C), cls, ce()),
    cross_entropy_with_all_it_has=(nn.CrossEntropyLoss(W, ignore_index=3, label_smoothing=.1), net(C), cls, ce(W, 3, .1)),
    cross_entropy_of_pixels=(nn.CrossEntropyLoss(W, ignore_index=255), net(*P), partial(pix, ignore=255), ce(W, 255)),
    sum_of_cross_entropy=(nn.CrossEntropyLoss(W, reduction='sum'), net(C), cls, ce(W), 'sum'),
    cross_entropy_as_a_function=(F.cross_entropy, net(C), cls, ce()),
    cross_entropy_as_a_partial=(partial(F.cross_entropy, weight=W, ignore_index=255, label_smoothing=.2), net(*P),
        partial(pix, ignore=255), ce(W, 255, .2)),
    nll=(nn.NLLLoss(W, ignore_index=255), logp(net(C)), ign, ce(W, 255, log_probs=True)),
    nll_as_a_function=(F.nll_loss, logp(net(C)), cls, ce(log_probs=True)),
    flat_cross_entropy_of_fastai=(CrossEntropyLossFlat(axis=1, weight=W, ignore_index=255), net(*P), partial(pix, ignore=255), ce(W, 255)),
    focal_of_fastai=(FocalLoss(gamma=1.5), net(C), cls, focal(1.5)),
    flat_focal_of_fastai=(FocalLossFlat(gamma=2.), net(C), cls, focal(2.)),
    mean_of_squares=(nn.MSELoss(), net(3), partial(quantities, 3), entry(lambda p, y: (p-y)**2)),
    flat_mean_of_squares=(MSELossFlat(), net(3), partial(quantities, 3), entry(lambda p, y: (p-y)**2)),
    sum_of_squares=(nn.MSELoss(reduction='sum'), net(3), partial(quantities, 3), entry(lambda p, y: (p-y)**2), 'sum'),
    absolute_error=(nn.L1Loss(), net(3), partial(quantities, 3), entry(lambda p, y: (p-y).abs())),
    flat_absolute_error=(L1LossFlat(), net(3), partial(quantities, 3), entry(lambda p, y: (p-y).abs())),
    smooth_l1=(nn.SmoothL1Loss(beta=.5), net(3), partial(quantities, 3),
        entry(lambda p, y: torch.where((p-y).abs()<.5, (p-y)**2, (p-y).abs()-.25))),
    huber=(nn.HuberLoss(delta=.5), net(3), partial(quantities, 3),
        entry(lambda p, y: torch.where((p-y).abs()<.5, (p-y)**2/2, .5*((p-y).abs()-.25)))),
    binary_cross_entropy=(nn.BCELoss(), nn.Sequential(net(C), nn.Sigmoid()), multi, entry(lambda p, y: -y*p.log()-(1-y)*(1-p).log())),
    binary_cross_entropy_of_logits=(nn.BCEWithLogitsLoss(pos_weight=W), net(C), multi,
        entry(lambda p, y: -W*y*log_sigmoid(p)-(1-y)*log_sigmoid(-p))),
    flat_binary_cross_entropy=(BCEWithLogitsLossFlat(), net(C), multi, entry(lambda p, y: -y*log_sigmoid(p)-(1-y)*log_sigmoid(-p))),
    divergence=(nn.KLDivLoss(reduction='batchmean'), logp(net(C)), shares, entry(lambda p, y: y*(y.log()-p)), 'batchmean'),
    poisson=(nn.PoissonNLLLoss(), net(3), lambda: [(torch.poisson(torch.rand(N, 3)*4),) for _ in range(5)],
        entry(lambda p, y: p.exp()-y*p)),
    gaussian=(nn.GaussianNLLLoss(), net(3), lambda: [(torch.randn(N, 3),torch.rand(N, 3)+.1) for _ in range(5)],
        entry(lambda p, y, v: (v.log()+(p-y)**2/v)/2)),
    soft_margin=(nn.SoftMarginLoss(), net(3), partial(signs, 3), entry(lambda p, y: torch.log1p(torch.exp(-y*p)))),
    multi_margin=(nn.MultiMarginLoss(weight=W), net(C), cls, entry(lambda p, y: (((1-p[y]+p).clamp(min=0).sum()-1)*W.double()[y]/C))),
    multi_label_margin=(nn.MultiLabelMarginLoss(), net(C), several, entry(multi_label_margin)),
    multi_label_soft_margin=(nn.MultiLabelSoftMarginLoss(weight=W), net(C), multi,
        entry(lambda p, y: -(W*(y*log_sigmoid(p)+(1-y)*log_sigmoid(-p))).mean())),
    hinge_embedding=(nn.HingeEmbeddingLoss(margin=.7), net(3), partial(signs, 3),
        entry(lambda p, y: torch.where(y>0, p, (.7-p).clamp(min=0)))))
known = pytest.mark.parametrize('row', KNOWN.values(), ids=[k.replace('_',' ') for k in KNOWN])

@known
def test_a_known_loss_has_a_lambda_for_each_sample(row):
    "and its mean is exact in every batch. Floating point targets are kept twice here, since interpolated ones have nothing to average"
    loss,model,ys,num_den,reduction = (*row,'mean')[:5]
    bs = batches(ys())
    log = watch(model, bs, loss, MixUp(8., stack_y=True))
    check(log, lambda b: by_entries(num_den, b.pred, b.y, b.y1, b.lam, reduction), N)
    assert not [o for o in told(log.warned) if 'lambda' in o]
    check(watch(model, bs, loss, MixUp(0., stack_y=True)), lambda b: loss(b.pred, *b.y), None)

@known
def test_gradients_of_a_known_loss(row):
    "In a plain loop, with some samples at the ends: the loss and its gradient are those of the formula, unreduced too"
    loss,model,ys,num_den,reduction = (*row,'mean')[:5]
    y,perm,lam = ys()[1],torch.arange(N).roll(3),torch.tensor([1.,0.,.3,.5,.9,.7,0.,1.])
    y1 = tuple(t[perm] for t in y)
    with torch.no_grad(): p0 = model(torch.randn(N, 6))
    p,q = p0.clone().requires_grad_(),p0.double().requires_grad_()
    got,want = MixUpLoss(loss)(p, *y, yb1=y1, lam=lam),by_entries(num_den, q, y, y1, lam, reduction)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    got.backward(),want.backward()
    torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-6)

@known
def test_a_known_loss_at_its_ends_is_plain(row):
    "To the last bits: at lam=1 the loss on the own targets, at lam=0 that on the partners'"
    loss,model,ys = row[:3]
    for y in ys():
        y1 = tuple(t.roll(1, 0) for t in y)
        with torch.no_grad():
            p = model(torch.randn(N, 6))
            for lam,right in ((1.,loss(p, *y)),(0.,loss(p, *y1))):
                for l in (torch.full((N,), lam), torch.tensor([lam])):
                    torch.testing.assert_close(MixUpLoss(loss)(p, *y, yb1=y1, lam=l), right, rtol=3e-7, atol=1e-9)

@pytest.mark.parametrize('make', (LabelSmoothingCrossEntropy,LabelSmoothingCrossEntropyFlat), ids=('plain','flat'))
def test_label_smoothing_of_fastai(make):
    "It smooths without class weights, and weights the rest"
    eps,loss,exact = .1,make(eps=.1, weight=W),ce(W)
    def right(b):
        smooth = -b.pred.double().log_softmax(1).sum(1).mean()*eps/C
        return smooth + (1-eps)*by_entries(exact, b.pred, b.y, b.y1, b.lam)
    check(watch(net(C), batches(cls()), loss, MixUp(8.)), right, N)

def test_numbers_of_another_shape_are_refused():
    "Predictions (B,1) against targets (B,) would broadcast to B*B errors"
    y = torch.arange(N).float()
    log = watch(net(1), batches([(y,)]), nn.MSELoss(), MixUp(8.))
    assert not log.batches and isinstance(log.error, ValueError) and raised_by_us(log.error), 'trained on N*N errors'

# A loss is never changed

class Watched(nn.Module):
    "Writes down whatever is set on it"
    def __init__(self):
        super().__init__()
        self.reduction,self.touched = 'mean',[]
    def __setattr__(self, name, v):
        if 'touched' in vars(self): self.touched.append(name)
        super().__setattr__(name, v)
    def forward(self, p, y):
        l = F.cross_entropy(p, y, W, reduction='none')
        return l if self.reduction=='none' else l.mean()

def test_nothing_is_set_on_a_loss_for_a_moment():
    loss = Watched()
    watch(net(C), batches(cls()), loss, MixUp(8.))
    assert loss.touched==[]

@pytest.mark.parametrize('loss', (nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.SmoothL1Loss(), nn.CrossEntropyLoss(W), FocalLoss(),
    LabelSmoothingCrossEntropyFlat()),
    ids=lambda o: type(o).__name__)
def test_threads_share_a_criterion(loss):
    "While two threads take mixed losses, a third takes plain ones: always one number, and the right one"
    ints = not isinstance(loss, (nn.MSELoss,nn.BCEWithLogitsLoss,nn.SmoothL1Loss))
    p,y,lam = torch.randn(N, C),balanced(N) if ints else torch.rand(N, C),torch.rand(N)
    right,mixed,plain,bad,stop = loss(p, y),MixUpLoss(loss),[],[],threading.Event()
    want = mixed(p, y, yb1=y.flip(0), lam=lam)
    def mix():
        while not stop.is_set():
            try:
                o = mixed(p, y, yb1=y.flip(0), lam=lam)
                if not torch.equal(o, want): bad.append(o)
            except Exception as e: bad.append(e)
    old,ts = sys.getswitchinterval(),[threading.Thread(target=mix) for _ in range(2)]
    try:
        sys.setswitchinterval(1e-5)
        for t in ts: t.start()
        for _ in range(1500): plain.append(loss(p, y))
    finally:
        stop.set()
        for t in ts: t.join()
        sys.setswitchinterval(old)
    assert not bad, bad[0]
    assert all(torch.equal(o, right) for o in plain), 'a plain loss changed while a mixed one was taken'
