"Whole training steps with and without a mixer, and the mixed loss of masks"
import statistics, time, torch, torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from fastai.basics import CrossEntropyLossFlat, DataLoaders, Learner, noop
from fastai.callback.mixup import CutMix as FastaiCutMix, MixUp as FastaiMixUp
from fastai.callback.progress import ProgressCallback
from fastai.losses import BaseLoss
from fastai.tabular.model import TabularModel
from torchvision.models import resnet18
from fastmix.all import CutMix, ManifoldMixUp, MixChoice, MixUp, MixUpLoss, OutputMixUp, draw_lam
from speed_timing import name_of, race, row, rows

def stepper(model, *batch, cb=None, loss_func=None):
    "A function that trains `model` on `batch` once, as `fit` would have a Learner do; and what ends this"
    dls = DataLoaders.from_dsets(*[list(zip(*batch))]*2, bs=len(batch[0]), device='cpu', num_workers=0)
    learn = Learner(dls, model, loss_func=loss_func or CrossEntropyLossFlat(), cbs=cb, lr=1e-3)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    learn.create_opt()
    learn.n_epoch,learn.n_iter,learn.epoch,learn.dl = 10**6,1,0,dls.train # so that pct_train stays near 0
    for o in ('before_fit','before_epoch','before_train'): learn(o)
    b = dls.train.one_batch()
    def step(): learn.one_batch(0, b)
    def end():
        for o in ('after_train','after_epoch','after_fit'): learn(o)
        learn._end_cleanup()
    return step,end

def race_steps(get_model, batch, mixers, seconds, **kw):
    "Seconds for a step with each of `mixers`, each with a model of its own"
    both = {}
    for k,cb in mixers.items():
        torch.manual_seed(0)
        both[k] = stepper(get_model(), *batch, cb=cb, **kw)
    times = race({k:step for k,(step,_) in both.items()}, seconds)
    for _,end in both.values(): end()
    return times

def added(section, what, case, times):
    "Rows of how much longer a step took than one without a mixer in the same round"
    diffs = {k: [a-b for a,b in zip(v, times['none'])] for k,v in times.items() if k!='none'}
    return [row(section, what, case, k, statistics.median(v), 'seconds added', rounds=len(v)) for k,v in diffs.items()]

def steps(seconds):
    "Steps of a ResNet-18 and of two models so small that only the time of callbacks counts"
    def ours(): return dict(none=None, MixUp=MixUp(), CutMix=CutMix(), ManifoldMixUp=ManifoldMixUp(), OutputMixUp=OutputMixUp(),
        MixChoice=MixChoice(MixUp(), CutMix()))
    def theirs(): return {'fastai MixUp':FastaiMixUp(), 'fastai CutMix':FastaiCutMix()}
    x,y = torch.rand(16, 3, 128, 128),torch.randint(10, (16,))
    times = race_steps(lambda: resnet18(num_classes=10), (x,y), ours()|theirs(), 6*seconds)
    res = rows('step', 'ResNet-18', name_of(x.shape), times) + added('step', 'ResNet-18', name_of(x.shape), times)
    flat = {k:v for k,v in (ours()|theirs()).items() if k in ('none','MixUp','ManifoldMixUp','OutputMixUp','fastai MixUp')}
    x,y = torch.randn(64, 16),torch.randint(2, (64,))
    times = race_steps(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2)), (x,y), flat, seconds)
    res += rows('step', 'two linear layers', '64x16', times) + added('step', 'two linear layers', '64x16', times)
    table = {k:v for k,v in ours().items() if k in flat}
    cats = torch.stack([torch.randint(n, (64,)) for n in (10,5,3)], 1)
    get_model = lambda: TabularModel([(10,6),(5,4),(3,3)], 4, 2, [32,16])
    times = race_steps(get_model, (cats,x[:,:4],y), table, seconds)
    return res + rows('step', 'TabularModel', '64 rows', times) + added('step', 'TabularModel', '64 rows', times)

class CountPasses(TorchDispatchMode):
    "Notes how many rows each forward pass over images has, out of reach of a trial, which puts back whatever a model counts"
    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default and args[0].shape[1]==3: self.rows.append(len(args[0]))
        return func(*args, **kwargs or {})

def proof(seconds):
    "What the trials of a fit's first mixed batch cost: forward passes, and their time in training steps"
    res,(x,y) = [],(torch.rand(64, 3, 64, 64),torch.randint(10, (64,)))
    def begin(cb):
        torch.manual_seed(0)
        return stepper(resnet18(num_classes=10), x, y, cb=cb)
    for k,make in dict(none=lambda: None, MixUp=MixUp, CutMix=CutMix, ManifoldMixUp=ManifoldMixUp).items():
        step,end = begin(make())
        with CountPasses() as count: step()
        end()
        few = [n for n in count.rows if n!=len(x)]
        assert len(count.rows)-len(few)==1, count.rows # the training step
        (step,end),times = begin(make()),[]
        for _ in range(7):
            at = time.process_time()
            step()
            times.append(time.process_time()-at)
        end()
        later = statistics.median(times[1:])
        res += [row('proof', 'ResNet-18', name_of(x.shape), k, len(few), 'passes'), row('proof', 'ResNet-18', name_of(x.shape), k, max(few, default=0), 'rows at most'),
            row('proof', 'ResNet-18', name_of(x.shape), k, times[0]/later-1, 'steps that the first one took longer')]
    return res

def lerp_none(f, pred, y, y1, lam):
    "Both losses for each pixel, blended, as fastai does"
    inner = f.func if isinstance(f, BaseLoss) else f
    old,inner.reduction = inner.reduction,'none'
    a,b = f(pred, y1),f(pred, y)
    inner.reduction = old
    return torch.lerp(a, b, lam).mean()

def two_nll(f, pred, y, y1, lam):
    "One log-softmax and two `nll_loss`"
    logp = pred.log_softmax(1)
    return lam*F.nll_loss(logp, y, f.weight) + (1-lam)*F.nll_loss(logp, y1, f.weight)

def masks(seconds):
    "Forward and backward of the loss of masks, and whole steps of a model that is all loss"
    pred,res = torch.randn(8, 21, 256, 256, requires_grad=True),[]
    y,y1 = torch.randint(21, (2,8,16,16)).repeat_interleave(16, -1).repeat_interleave(16, -2) # masks have areas of one class
    lam,one = draw_lam(8, 0.4),draw_lam(1, 0.4)
    def with_backward(loss):
        def f():
            pred.grad = None
            loss().backward()
        return f
    for name,f in {'CrossEntropyLoss':nn.CrossEntropyLoss(), 'CrossEntropyLoss, class weights':nn.CrossEntropyLoss(torch.rand(21)),
        'CrossEntropyLossFlat':CrossEntropyLossFlat(axis=1)}.items():
        mixed = MixUpLoss(f)
        fs = {'plain': lambda: f(pred, y), 'fastmix': lambda: mixed(pred, y, yb1=y1, lam=lam), 'fastmix, one lambda': lambda: mixed(pred, y, yb1=y1, lam=one),
            'two losses, one lambda': lambda: one*f(pred, y) + (1-one)*f(pred, y1), 'two losses, pixels blended': lambda: lerp_none(f, pred, y, y1, one)}
        if isinstance(f, nn.CrossEntropyLoss): fs['one log-softmax, two nll_loss'] = lambda: two_nll(f, pred, y, y1, one)
        res += rows('masks', name, name_of(pred.shape), race({k: with_backward(o) for k,o in fs.items()}, seconds))
    mixers = dict(none=None, MixUp=MixUp(), CutMix=CutMix(), OutputMixUp=OutputMixUp())
    x = torch.rand(8, 3, 256, 256)
    times = race_steps(lambda: nn.Conv2d(3, 21, 1), (x,y), mixers, 2*seconds, loss_func=CrossEntropyLossFlat(axis=1))
    return res + rows('masks', 'step of a 1x1 convolution', name_of(x.shape), times)
