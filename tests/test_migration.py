"The rows of nbs/migration.ipynb on timm and torchvision: both libraries run on their draws, fastmix on the same"
import numpy as np, pytest, torch
from torch import nn
from fastmix.all import MixUpLoss, box_lam, cutmix_batch, draw_lam, mix_targets, mixup_batch
from fastmix.paste import draw_cut

B,size = 8,(12,20)

def batch(): return torch.rand(B, 3, *size),torch.arange(B)

def boxes_of(new, old):
    "Boxes in which images differ; every pixel differs between images"
    res = []
    for ps in ((a!=b).any(0).nonzero() for a,b in zip(new, old)):
        res.append(torch.stack([ps.amin(0), ps.amax(0)+1], 1) if len(ps) else torch.zeros(2, 2, dtype=torch.long))
    return torch.stack(res)

def close(a, b, **kw): torch.testing.assert_close(a, b, check_dtype=False, **{'atol':1e-5, 'rtol':1e-5, **kw})

@pytest.fixture
def timm_mixup():
    pytest.importorskip('timm')
    from timm.data import Mixup
    np.random.seed(0)
    return Mixup

def timm_lam(target):
    "Own shares; targets are 0, 1, 2, ..., unsmoothed"
    return target.diagonal().clone()

@pytest.mark.parametrize('mode', ['batch','elem','pair'])
@pytest.mark.parametrize('kw', [dict(mixup_alpha=.8), dict(mixup_alpha=0., cutmix_alpha=1.),
    dict(cutmix_minmax=(.2,.8), mixup_alpha=0.)], ids=str)
def test_timm_batch(timm_mixup, mode, kw):
    "The same inputs, shares and targets"
    perm = torch.arange(B).flip(0)
    for _ in range(10):
        x,y = batch()
        x1,target = timm_mixup(mode=mode, label_smoothing=0., num_classes=B, **kw)(x.clone(), y)
        lam = timm_lam(target)
        if kw['mixup_alpha']: xm,y1,lam = mixup_batch(x, y, lam=lam, perm=perm)
        else:
            xm,y1,area,_ = cutmix_batch(x, y, perm=perm, boxes=boxes_of(x1, x))
            close(area, lam)
        close(xm, x1)
        close(mix_targets(y, y1, lam, B), target)

@pytest.mark.parametrize('smoothing', [0., .1])
def test_timm_loss(timm_mixup, smoothing):
    "Soft cross-entropy of timm's smoothed targets is cross-entropy with `label_smoothing`"
    pytest.importorskip('timm.loss')
    from timm.loss import SoftTargetCrossEntropy
    x,y = batch()
    pred,state = torch.randn(B, B),np.random.get_state()
    lam = timm_lam(timm_mixup(mode='elem', label_smoothing=0., num_classes=B)(x.clone(), y)[1])
    np.random.set_state(state)
    target = timm_mixup(mode='elem', label_smoothing=smoothing, num_classes=B)(x.clone(), y)[1]
    loss = MixUpLoss(nn.CrossEntropyLoss(label_smoothing=smoothing))(pred, y, yb1=y.flip(0), lam=lam)
    close(loss, SoftTargetCrossEntropy()(pred, target))

def test_timm_differs(timm_mixup):
    "It overwrites its batch, and takes no odd ones"
    x,y = batch()
    timm_mixup(mode='elem', num_classes=B)(x1 := x.clone(), y)
    assert not torch.equal(x1, x)
    with pytest.raises(AssertionError): timm_mixup(num_classes=B)(x[:7], y[:7])
    mixup_batch(x2 := x[:7].clone(), y[:7])
    assert torch.equal(x2, x[:7])

def test_timm_draws(timm_mixup):
    "Sizes of boxes and lambdas have the same distribution"
    from timm.data.mixup import rand_bbox_minmax
    n = 4000
    yl,yu,xl,xu = map(torch.tensor, rand_bbox_minmax((3,100,200), (.2,.8), n))
    ours = draw_cut(n, (100,200), minmax=(.2,.8))
    sides = ours[:,:,1]-ours[:,:,0]
    for a,b in zip((yu-yl,xu-xl), sides.T): close(a.float().mean(), b.float().mean(), atol=0, rtol=.03)
    for a,b in zip((yl,xl), ours[:,:,0].T): close(a.float().mean(), b.float().mean(), atol=0, rtol=.06)
    theirs,_ = timm_mixup(mixup_alpha=.8)._params_per_elem(n)
    ours = draw_lam(n, .8, dedup=False)
    for q in (.1,.5,.9): close(torch.tensor(theirs).quantile(q), ours.quantile(q), atol=.03, rtol=0)

@pytest.fixture
def v2():
    pytest.importorskip('torchvision')
    return pytest.importorskip('torchvision.transforms.v2')

def test_torchvision_mixup(v2):
    perm = torch.arange(B).roll(1)
    for _ in range(5):
        x,y = batch()
        x1,target = v2.MixUp(alpha=1., num_classes=B)(x, y)
        xm,y1,lam = mixup_batch(x, y, lam=target[0,0], perm=perm)
        close(xm, x1)
        close(mix_targets(y, y1, lam, B), target)

def test_torchvision_cutmix(v2):
    perm = torch.arange(B).roll(1)
    for _ in range(20):
        x,y = batch()
        x1,target = v2.CutMix(alpha=1., num_classes=B)(x, y)
        boxes = boxes_of(x1, x)[:1]
        xm,y1,lam,_ = cutmix_batch(x, y, perm=perm, boxes=boxes)
        close(xm, x1)
        close(lam, target[:1,0])
        close(mix_targets(y, y1, lam, B), target)

def test_torchvision_draws(v2):
    "The area that is left has the same distribution but for rounding"
    x,t = torch.zeros(2, 3, 64, 64),v2.CutMix(alpha=1., num_classes=2)
    make = getattr(t, 'make_params', None) or t._get_params
    theirs = torch.tensor([make([x])['lam_adjusted'] for _ in range(3000)])
    ours = box_lam(draw_cut(3000, (64,64)), (64,64))
    for q in (.1,.5,.9): close(theirs.quantile(q), ours.quantile(q), atol=.05, rtol=0)

def test_torchvision_masks(v2):
    "It refuses masks, which fastmix pastes"
    from torchvision import tv_tensors
    x,y = batch()
    with pytest.raises(ValueError, match='mask'): v2.CutMix(num_classes=B)(x, tv_tensors.Mask(torch.zeros(B, *size, dtype=torch.long)), y)

def test_composer_length():
    "Composer's `length`: the box that it makes, after its published source, and the one that it promises"
    length,n = .5,64
    keep = (int(length*n)**2)/n**2
    side = int(n*np.sqrt(1-keep))
    assert side == 55 and n*length == 32
    boxes = draw_cut(500, (n,n), length=length)
    assert (boxes[...,1]-boxes[...,0]).amax() == 32
    boxes = draw_cut(500, (n,n), length=np.sqrt(1-length**2))
    assert abs((boxes[...,1]-boxes[...,0]).amax()-side) <= 1
