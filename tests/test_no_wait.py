"""Nothing waits for the device in a batch, as far as that can be told without one

The tensors here have a device and a shape but no values: they refuse to meet those of another device, and to tell the host anything."""
import pytest, torch, torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from fastai.basics import DataLoaders, Learner, TrainEvalCallback
from fastmix.callback import CutMix, MixUp
from fastmix.choice import MixChoice
from fastmix.draw import box_lam, draw_boxes, draw_lam, draw_perm
from fastmix.fmix import FMix, fourier_masks
from fastmix.loss import MixUpLoss
from fastmix.mix import cutmix_batch, draw_cut, mix_targets, mixup_batch
from fastmix.resizemix import ResizeMix

def gpu(*shape, dtype=torch.float32): return torch.zeros(shape, dtype=dtype, device='cuda')

@pytest.fixture(autouse=True)
def values_are_unknown():
    with FakeTensorMode(): yield

def test_what_would_be_seen():
    "These tensors do refuse"
    with pytest.raises(DataDependentOutputException): (gpu(3)>0).all().item()
    with pytest.raises(DataDependentOutputException): bool(gpu(1))
    with pytest.raises(RuntimeError, match='same device'): gpu(3)+torch.zeros(3)

class Copies(TorchDispatchMode):
    "Counts copies from one device to another"
    n = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        res = func(*args, **(kwargs or {}))
        self.n += func is torch.ops.aten._to_copy.default and res.device!=args[0].device
        return res

def test_draws():
    "Draws are made where they are wanted, a box where its lambda is; without a generator elsewhere nothing is copied"
    with Copies() as copies:
        lam = draw_lam(5, .4, device='cuda')
        boxes = draw_boxes((8,9), lam)
        drawn = lam,boxes,box_lam(boxes, (8,9)),draw_perm(5, 'cuda'),draw_lam(5, 0, device='cuda'),draw_boxes((8,), lam, True)
        drawn += draw_cut(5, (8,9), length=.5, device='cuda'),draw_cut(5, (8,9), device='cuda')
        assert all(o.is_cuda for o in drawn) and not copies.n
        assert draw_perm(5, 'cuda', torch.Generator()).is_cuda and copies.n==1
    assert fourier_masks((8,9), lam, generator=torch.Generator()).is_cuda

mixing = {}, dict(lam=.3), dict(per_sample=False), dict(alpha=0), dict(uniform=True), dict(length=.5), dict(minmax=(.2,.5))

@pytest.mark.parametrize('kw', mixing)
@pytest.mark.parametrize('dtype', (torch.float32,torch.float16))
@pytest.mark.parametrize('grad', (False,True))
def test_mixing(kw, dtype, grad):
    "Everything is made on the batch's device, and nothing of it is read by the host"
    x,y = gpu(5, 3, 8, 9, dtype=dtype).requires_grad_(grad),gpu(5, dtype=torch.int64)
    with Copies() as copies:
        res = cutmix_batch(x, y, **kw)
        if not {'uniform','length','minmax'} & {*kw}: res += mixup_batch(x, y, **kw)
        if not kw: res += *mixup_batch(x, y, perm=y, lam=gpu(5)),*cutmix_batch(x, y, perm=y, boxes=gpu(5, 2, 2, dtype=torch.int64))
    assert copies.n==(2 if 'lam' in kw else 0)
    assert all(o.is_cuda for o in res) and {o.dtype for o in res} <= {dtype,torch.float32,torch.int64}

def losses():
    "Losses with predictions and a target"
    w,classes,real,maps = gpu(3),gpu(4, dtype=torch.int64),gpu(4, 3),gpu(4, 3, 5, 6, dtype=torch.float16)
    yield nn.CrossEntropyLoss(weight=w, ignore_index=1, label_smoothing=.1),real,classes
    for f in (nn.NLLLoss(weight=w), F.cross_entropy, nn.MultiMarginLoss()): yield f,real,classes
    for f in (nn.CrossEntropyLoss(weight=w.half()), nn.CrossEntropyLoss(reduction='sum')): yield f,maps,gpu(4, 5, 6, dtype=torch.int64)
    for f in (nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.KLDivLoss(reduction='batchmean')): yield f,real,gpu(4, 3)

def test_losses():
    "Nor is anything read for a loss, with a lambda for each sample, for the batch, or as a number"
    for f,pred,y in losses():
        for lam in (gpu(4),gpu(1),.3):
            loss = MixUpLoss(f)(pred.requires_grad_(), y, yb1=y.clone(), lam=lam)
            assert loss.is_cuda and loss.dtype==torch.float32
    y = gpu(4, dtype=torch.int64)
    assert mix_targets(y, y, gpu(4), 3).is_cuda

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb,self.lin = nn.Embedding(9, 4, device='cuda'),nn.Linear(4, 3, device='cuda')
    def forward(self, x): return self.lin(self.emb(x).mean(1))

def flat(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 3, device='cuda'))
def image(): return gpu(4, 3, 8, 8)
def label(*shape): return gpu(4, *shape, dtype=torch.int64)

tasks = dict(classes=(flat, image, label, nn.CrossEntropyLoss), numbers=(flat, image, lambda: gpu(4, 3), nn.MSELoss),
    masks=(lambda: nn.Conv2d(3, 3, 1, device='cuda'), image, lambda: label(8, 8), nn.CrossEntropyLoss),
    tokens=(Tokens, lambda: label(5), label, nn.CrossEntropyLoss))
inputs = MixUp,CutMix,lambda: MixUp(per_sample=False),lambda: MixUp(stack_y=False),lambda: CutMix(length=.5, stack_y=False)
inputs += FMix,ResizeMix,lambda: MixChoice(MixUp(), CutMix(), per_sample=True)

@pytest.mark.parametrize('mixer', inputs)
@pytest.mark.parametrize('task', tasks)
def test_training(mixer, task):
    "Nor in a Learner, up to the backward pass, which needs the real thing"
    mixer = mixer()
    if task=='tokens' and not isinstance(mixer, MixUp) or task=='masks' and mixer.stack_y is False: pytest.skip("there is no such mix")
    model,x,y,loss_func = (o() for o in tasks[task])
    model.to = lambda *args: model
    dls = DataLoaders([(x,y)]*2, [], device='cuda')
    learn = Learner(dls, model, loss_func=loss_func, cbs=[TrainEvalCallback, mixer], default_cbs=False)
    learn._backward = learn._step = lambda: None
    learn.fit(1)
    assert mixer.lam.is_cuda and mixer.perm.is_cuda and (mixer.boxes is None or mixer.boxes.is_cuda)
