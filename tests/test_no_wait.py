"""Nothing waits for the device in a batch, as far as that can be told without one

The tensors here have a device and a shape but no values: they refuse to meet those of another device, and to tell the host anything."""
import math, pytest, torch, torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from fastai.basics import Callback, DataLoaders, Learner, TrainEvalCallback
from fastai.callback.schedule import SchedLin
from fastmix.callback import CutMix, MixUp
from fastmix.choice import MixChoice
from fastmix.draw import box_lam, draw_boxes, draw_lam, draw_perm
from fastmix.fmix import FMix, fourier_masks
from fastmix.loss import MixUpLoss
from fastmix.manifold import ManifoldMixUp
from fastmix.mix import cutmix_batch, mix_targets, mixup_batch
from fastmix.paste import draw_cut
from fastmix.output import OutputMixUp
from fastmix.resizemix import ResizeMix

def gpu(*shape, dtype=torch.float32): return torch.zeros(shape, dtype=dtype, device='cuda')

@pytest.fixture
def values_are_unknown():
    with FakeTensorMode(): yield

unknown = pytest.mark.usefixtures('values_are_unknown')

@unknown
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

@unknown
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

@unknown
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

@unknown
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
        self.emb,self.lin = nn.Embedding(9, 4),nn.Linear(4, 3)
    def forward(self, x): return self.lin(self.emb(x).mean(1))

def image(): return torch.randn(4, 3, 8, 8)
def label(*shape): return torch.arange(4*math.prod(shape)).view(4, *shape)%3

tasks = dict(classes=(nn.CrossEntropyLoss, image, label), numbers=(nn.MSELoss, image, lambda: torch.randn(4, 3)),
    masks=(nn.CrossEntropyLoss, image, lambda: label(8, 8)), tokens=(nn.CrossEntropyLoss, lambda: label(5), label))

def model(task):
    if task=='tokens': return Tokens()
    if task=='masks': return nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3))

mixers = MixUp,CutMix,lambda: MixUp(per_sample=False),lambda: MixUp(stack_y=False),lambda: CutMix(length=.5, stack_y=False)
mixers += FMix,ResizeMix,lambda: MixChoice(MixUp(), CutMix()),lambda: MixChoice(MixUp(), CutMix(), None, per_sample=True),ManifoldMixUp,OutputMixUp
mixers += lambda: MixUp(generator=torch.Generator()),lambda: CutMix(generator=torch.Generator(), per_sample=False),lambda: FMix(generator=torch.Generator())
mixers += lambda: MixUp(p=.99, alpha=SchedLin(.1, 1.)),lambda: ManifoldMixUp(mix_input=False),lambda: MixUp(pair=lambda yb, g: draw_perm(4, yb[0].device))

class Waits(TorchDispatchMode):
    """Refuses what makes the host wait for a card: reading a value, a copy between devices that is waited for, indices from the host

    What was drawn on the host may be read: it is 0."""
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kw = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type=='cpu': return 0
        res = func(*args, **kw)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            a,b,late = (args[0],res,kw.get('non_blocking')) if func is torch.ops.aten._to_copy.default else (args[1],args[0],args[2:])
            assert a.device.type==b.device.type or late, f'a copy from {a.device} to {b.device} that is waited for'
        if func is torch.ops.aten.index.Tensor:
            assert all(i is None or i.device==args[0].device for i in args[1]), f'indices on the host for a tensor on {args[0].device}'
        return res

@unknown
@pytest.mark.parametrize('f,words', [(lambda x: torch.tensor([1,2], device='cuda'),'a copy from cpu'), (lambda x: torch.zeros(3).to('cuda'),'a copy'),
    (lambda x: x.cpu(),'a copy from cuda'), (lambda x: x[[0,1]],'a copy'), (lambda x: x[torch.zeros(2).long()],'indices on the host'),
    (lambda x: x.__setitem__(0, 1.),'a copy'), (lambda x: x.copy_(torch.zeros(3)),'a copy')])
def test_waits_are_refused(f, words):
    with Waits(), pytest.raises(AssertionError, match=words): f(gpu(3))

@unknown
def test_what_does_not_wait():
    with Waits():
        torch.zeros(3).to('cuda', non_blocking=True)
        assert torch.rand(()).item()==0 and gpu(3)[1:].is_cuda and (gpu(3)*2.).is_cuda

class Batches:
    "Batches of a generator, as a loader"
    def __init__(self, batches): self.batches = batches
    def __iter__(self): return self.batches
    def __len__(self): return 18

def to_device(model):
    "Parameters in place of which nothing is known"
    for m in model.modules():
        for k,p in m._parameters.items(): m._parameters[k] = nn.Parameter(gpu(*p.shape))

@pytest.mark.parametrize('mixer', mixers)
@pytest.mark.parametrize('task', tasks)
def test_training(mixer, task):
    "Nor in a Learner, but for the first, second, 125th batch and so on, in which the model is tried, up to the backward pass, which needs the real thing"
    torch.manual_seed(0) # of which the first batch is mixed
    mixer = mixer()
    if task=='tokens' and not isinstance(mixer, MixUp) or task=='masks' and getattr(mixer, 'stack_y', None) is False \
        or task=='numbers' and isinstance(mixer, OutputMixUp): pytest.skip("there is no such mix")
    loss_func,x,y = (o() for o in tasks[task])
    learn = Learner(DataLoaders([], [], device='cpu'), model(task), loss_func=loss_func, cbs=[TrainEvalCallback, mixer], default_cbs=False)
    learn._backward = learn._step = lambda: None
    with FakeTensorMode() as mode: others = 2*[(gpu(*x.shape, dtype=x.dtype),gpu(*y.shape, dtype=y.dtype))]
    def batches():
        for _ in range(16): yield x,y # each mixer of a choice has been tried twice then
        with mode,Waits():
            to_device(learn.model)
            yield from others
    learn.dls = DataLoaders(Batches(batches()), [], device='cpu')
    learn.fit(1)
    assert mixer.lam.is_cuda and mixer.perm.is_cuda and (mixer.boxes is None or mixer.boxes.is_cuda)
