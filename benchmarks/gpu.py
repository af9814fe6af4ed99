"""What fastmix does on a GPU: right, without waiting, in every precision, and how fast. Run it on your card and send the two tables

pip install -e '.[benchmarks]'                  # other libraries to compare with; those that are missing are left out
python benchmarks/gpu.py                        # at most 8 minutes; results go to benchmarks/results
python benchmarks/gpu.py --cifar CIFAR_FOLDER   # with the time to 94 % on CIFAR-10, from its folder `cifar-10-batches-py`
python benchmarks/gpu.py --device cpu --quick   # in small and without a card, to see that it works"""
import contextlib, itertools, pickle, sys, tempfile, time, torch, torch.nn.functional as F, traceback, warnings
import numpy as np
from fastcore.script import call_parse
from pathlib import Path
from torch import nn
from torch.func import functionalize, grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from fastai.basics import Callback, CancelFitException, DataLoaders, Learner, Recorder, SGD, accuracy, noop
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy
import fastmix.all as fm
from fastmix.draw import perm_within
from torchvision.models import resnet18
from speed import columns, res_dir, rounded, update, versions
from speed_batch import cutmixes, mixups
from speed_timing import name_of, race, row, rows

warnings.filterwarnings('ignore')

class Run:
    "Where and how large things are tried, and all that came of it"
    def __init__(self, device, quick, cifar): self.device,self.quick,self.cifar,self.res,self.bad = torch.device(device),quick,cifar,[],[]
    @property
    def cuda(self): return self.device.type=='cuda'
    def wait(self): return torch.cuda.synchronize() if self.cuda else None

    def failed(self, what, e):
        self.bad.append(f'{self.section}: {what}: {type(e).__name__}: {" ".join(str(e).split())[:300]}')
        print('FAIL', self.bad[-1], flush=True)

    def check(self, what, case, f):
        "Note whether `f` holds: it returns the largest difference, or raises"
        try: value = float(f())
        except Exception as e:
            self.failed(f'{what}, {case}', e)
            value = 'failed'
        self.res.append(row(self.section, what, case, 'fastmix', value, 'largest difference'))

    def run(self, name):
        "All of a section, or as much of it as there is until it stops with an error"
        self.section = name
        try: sections[name](self)
        except Exception as e:
            traceback.print_exc()
            self.failed('the section stopped', e)

def differ(a, b, tol):
    "Largest difference relative to 1 or more; raises if it is above `tol`"
    pairs = [(o.detach().cpu().double(),p.detach().cpu().double()) for o,p in zip(a, b, strict=True) if o is not None]
    res = max(((o-p).abs()/(1+p.abs())).max().item() if o.numel() else 0. for o,p in pairs)
    if not res<=tol: raise AssertionError(f'differs by {res:.1e}, more than {tol:.0e}')
    return res

# ---- (1) the same as on the processor

def batch_functions(r):
    perm,lam = torch.tensor([1,2,3,0]),torch.tensor([.3,1.,.85,.5])
    for shape,dtype,layout in itertools.product(((4,3,8,8),(4,2,50),(4,1,6,7,8),(4,3,256,256)),
        (torch.float32,torch.float16,torch.bfloat16,torch.float64), ('contiguous','channels_last')):
        x = torch.randn(shape).to(dtype)
        if layout=='channels_last' and x.ndim>3: x = x.to(memory_format=torch.channels_last if x.ndim==4 else torch.channels_last_3d)
        boxes = fm.draw_boxes(shape[2:], lam)
        def both(dev):
            o = x.to(dev).requires_grad_()
            xm,xc = fm.mixup_batch(o, perm=perm, lam=lam)[0],fm.cutmix_batch(o, perm=perm, boxes=boxes)
            g, = torch.autograd.grad((xm.float()*2+xc[0].float()).sum(), o)
            plain = fm.mixup_batch(x.to(dev), perm=perm, lam=lam)[0],fm.cutmix_batch(x.to(dev), perm=perm, boxes=boxes)[0]
            return xm,xc[0],xc[2],g,*plain
        tol = {torch.float16:2e-3, torch.bfloat16:2e-2}.get(dtype, 1e-5)
        r.check('batch functions', f'{name_of(shape)} {dtype} {layout}', lambda: differ(both(r.device), both('cpu'), tol))

def draws(r):
    "What is drawn on the device has the properties that it must have"
    def cycle():
        for n in (1,2,3,7,1000):
            perm,at,seen = fm.draw_perm(n, r.device).tolist(),0,set()
            while at not in seen:
                seen.add(at)
                at = perm[at]
            assert len(seen)==n, f'a cycle of {len(seen)} of {n}'
        g = torch.randint(5, (1000,), device=r.device)
        p = perm_within(g)
        assert torch.equal(g[p], g) and torch.equal(p.sort()[0], torch.arange(1000, device=r.device))
        return 0
    def exact():
        y = torch.arange(64., device=r.device)
        x = y.view(-1,1,1,1).expand(-1,1,16,24)
        for kw in ({}, dict(uniform=True), dict(length=.5), dict(minmax=(.2,.6)), dict(dims=-1), dict(per_sample=False)):
            xm,y1,lam,_ = fm.cutmix_batch(x, y, **kw)
            res = differ((xm.mean((1,2,3)),), (lam*y+(1-lam)*y1,), 1e-5)
        return res
    def same(where):
        a,b = (fm.cutmix_batch(torch.ones(8,1,9,9, device=r.device), generator=torch.Generator(where).manual_seed(0)) for _ in 'ab')
        return differ(a, b, 0)
    r.check('draws', 'one cycle', cycle)
    r.check('draws', 'exact lambda', exact)
    for where in {'cpu',r.device.type}: r.check('draws', f'generator on {where}', lambda: same(where))

def known_losses(w):
    "Losses, and whether their targets are classes"
    by_class = (nn.CrossEntropyLoss(w, ignore_index=1, label_smoothing=.1), nn.CrossEntropyLoss(), nn.NLLLoss(w), nn.MultiMarginLoss(weight=w),
        CrossEntropyLossFlat(weight=w), LabelSmoothingCrossEntropy(weight=w))
    by_value = (nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss(pos_weight=w),
        nn.KLDivLoss(reduction='batchmean'), nn.PoissonNLLLoss())
    return [(f,True) for f in by_class] + [(f,False) for f in by_value]

def losses(r):
    "Known losses with a lambda for each sample, values and gradients"
    w = torch.rand(5)
    for there,here in zip(known_losses(w.to(r.device)), known_losses(w), strict=True):
        classes = here[1]
        pred,y,lam = torch.randn(64,5).log_softmax(1),torch.randint(5, (64,)) if classes else torch.rand(64,5),torch.rand(64)
        def one(f, dev):
            p = pred.to(dev).requires_grad_()
            l = fm.MixUpLoss(f)(p, y.to(dev), yb1=y.roll(1, 0).to(dev), lam=lam.to(dev))
            return l,torch.autograd.grad(l, p)[0]
        r.check('losses', str(here[0]), lambda: differ(one(there[0], r.device), one(here[0], 'cpu'), 1e-5))

def exported(f, x):
    class Module(nn.Module):
        def forward(self, x): return f(x)
    return torch.export.export(Module(), (x,)).module()(x)

def tangent(f, x): return jvp(f, (x,), (x.cos(),))[1]

transforms = dict(functionalize=lambda f,x: functionalize(f)(x), vmap=lambda f,x: vmap(f)(torch.stack([x,x+1]))[0],
    grad=lambda f,x: grad(lambda x: f(x).sin().sum())(x), jvp=tangent, make_fx=lambda f,x: make_fx(f)(x+1)(x), export=exported,
    trace=lambda f,x: torch.jit.trace(f, x+1, check_trace=False)(x), inference_mode=lambda f,x: torch.inference_mode()(f)(x))

def transformed(r):
    "What PyTorch makes of the batch functions and the loss there is what it makes of them here"
    x,p,y,perm,lam = torch.randn(4,3,8,8),torch.randn(4,5),torch.tensor([3,1,4,0]),torch.tensor([1,2,3,0]),torch.tensor([.3,1.,.85,.5])
    boxes = fm.draw_boxes((8,8), lam)
    def functions(dev):
        py,pl,pb,yy = (o.to(dev) for o in (perm,lam,boxes,y))
        return dict(mixup=lambda x: fm.mixup_batch(x, perm=py, lam=pl)[0], cutmix=lambda x: fm.cutmix_batch(x, perm=py, boxes=pb)[0],
            loss=lambda p: fm.MixUpLoss(nn.CrossEntropyLoss())(p, yy, yb1=yy[py], lam=pl))
    there,here = functions(r.device),functions('cpu')
    for (k,how),name in itertools.product(transforms.items(), here):
        o = p if name=='loss' else x
        want = tangent if k=='jvp' else transforms['grad'] if k=='grad' else lambda f,x: f(x)
        r.check('transforms', f'{name}, {k}', lambda: differ([how(there[name], o.to(r.device))], [want(here[name], o)], 1e-5))

def choice(**kw): return fm.MixChoice(fm.MixUp(**kw), fm.CutMix(**kw))
def choice_per_sample(**kw): return fm.MixChoice(fm.MixUp(**kw), fm.CutMix(**kw), None, per_sample=True)
mixers = dict(MixUp=fm.MixUp, CutMix=fm.CutMix, FMix=fm.FMix, ResizeMix=fm.ResizeMix, ManifoldMixUp=fm.ManifoldMixUp,
    OutputMixUp=fm.OutputMixUp, MixChoice=choice)
per_sample = dict(mixers, **{'MixChoice per sample': choice_per_sample})

def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3,8,3,padding=1), nn.ReLU(), nn.Conv2d(8,8,3,padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8,5))

class Losses(Callback):
    def before_fit(self): self.seen = []
    def after_batch(self):
        if self.training: self.seen.append(self.learn.loss.detach().float().cpu())

def learner(r, dev, cb=None, model=None, n=16, size=16, bs=8, **kw):
    g = torch.Generator().manual_seed(0)
    data = [*zip(torch.randn(n,3,size,size, generator=g), torch.randint(5, (n,), generator=g))]
    dls = DataLoaders.from_dsets(data, data, bs=bs, device=dev, num_workers=0, shuffle=False)
    learn = Learner(dls, (model or small_net()).to(dev), loss_func=nn.CrossEntropyLoss(), cbs=cb, path=tempfile.gettempdir(), lr=.1, **kw)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def callbacks(r):
    "Each mixer, drawing from a generator on the processor, trains as it does there"
    def fit(dev, make):
        torch.manual_seed(0)
        learn = learner(r, dev, [make(generator=torch.Generator().manual_seed(1)), Losses()], opt_func=SGD) # Adam makes steps of differences alone
        learn.fit(2)
        return [*learn.losses.seen,*learn.model.parameters()]
    for k,make in per_sample.items(): r.check('callbacks', k, lambda: differ(fit(r.device, make), fit('cpu', make), 1e-3))

def functional(r):
    for f in (batch_functions, draws, losses, transformed, callbacks): f(r)

# ---- (2) nothing waits for the device

@contextlib.contextmanager
def no_wait(r):
    if not r.cuda: return (yield)
    torch.cuda.set_sync_debug_mode('error')
    try: yield
    finally: torch.cuda.set_sync_debug_mode('default')

def stepper(r, cb, model=None, **kw):
    "A function that trains on one batch as `fit` does once it has begun; and what ends this"
    learn = learner(r, r.device, cb, model, **kw)
    learn.create_opt()
    learn.n_epoch,learn.n_iter,learn.epoch,learn.dl = 10**6,1,0,learn.dls.train
    for o in ('before_fit','before_epoch','before_train'): learn(o)
    b = learn.dls.train.one_batch()
    def step(): learn.one_batch(0, b)
    def end():
        for o in ('after_train','after_epoch','after_fit'): learn(o)
        learn._end_cleanup()
    return learn,step,end

def waits(r):
    "A training batch of each mixer, once a fit has begun; the Recorder, which reads the loss, is left out"
    for k,make in dict(none=None, **per_sample).items():
        def go():
            learn,step,end = stepper(r, make and make())
            learn.remove_cbs(learn.cbs.filter(lambda o: isinstance(o, Recorder)))
            for _ in range(2): step()
            r.wait()
            with no_wait(r):
                for _ in range(8): step()
            end()
            return 0
        r.check('no wait in a batch', k, go)
    def functions():
        x,y,p = torch.randn(8,3,9,9, device=r.device),torch.randint(5, (8,), device=r.device),torch.randn(8,5, device=r.device)
        loss = fm.MixUpLoss(nn.CrossEntropyLoss())
        with no_wait(r):
            for mix,kw in ((fm.mixup_batch,{}), (fm.cutmix_batch,{}), (fm.cutmix_batch,dict(minmax=(.2,.5))),
                (fm.mixup_batch,dict(per_sample=False))):
                _,y1,lam,*_ = mix(x, y, **kw)
                loss(p, y, yb1=y1, lam=lam)
            perm_within(y)
        return 0
    r.check('no wait in a batch', 'batch functions and loss', functions)

# ---- (3) precisions, compilers, graphs

def precisions(r):
    kinds = [('bfloat16',dict(amp_mode='bf16'))]*(not r.cuda or torch.cuda.is_bf16_supported()) + [('float16 with GradScaler',{})]*r.cuda
    for (name,kw),(k,make) in itertools.product(kinds, mixers.items()):
        def go():
            learn = learner(r, r.device, [make(), MixedPrecision(**kw) if r.cuda else CpuAutocast(), Losses()])
            learn.fit(2)
            assert all(l.isfinite() for l in learn.losses.seen) and all(p.isfinite().all() for p in learn.model.parameters())
            return 0
        r.check(name, k, go)

class CpuAutocast(Callback):
    "Fastai's mixed precision needs a card"
    order = MixedPrecision.order
    def before_batch(self):
        self.on = torch.autocast('cpu', torch.bfloat16)
        self.on.__enter__()
    def after_loss(self): self.on.__exit__(None, None, None)
    after_cancel_batch = after_loss

def compiled(r):
    "A whole step, compiled, gives what it gives uncompiled; ten batch sizes take two graphs at most"
    loss,net = fm.MixUpLoss(nn.CrossEntropyLoss()),small_net().to(r.device)
    perm,lam = torch.tensor([1,2,3,0], device=r.device),torch.rand(4, device=r.device)
    boxes = fm.draw_boxes((16,16), lam)
    for k in ('mixup','cutmix'):
        def step(x, y):
            xm,y1,l,*_ = fm.mixup_batch(x, y, perm=perm, lam=lam) if k=='mixup' else fm.cutmix_batch(x, y, perm=perm, boxes=boxes)
            return loss(net(xm), y, yb1=y1, lam=l)
        def go():
            torch._dynamo.reset()
            x,y = torch.randn(4,3,16,16, device=r.device),torch.randint(5, (4,), device=r.device)
            return differ([torch.compile(step, fullgraph=True, backend='eager' if r.quick else 'inductor')(x, y)], [step(x, y)], 1e-4)
        r.check('torch.compile', k, go)
        def count():
            torch._dynamo.reset()
            graphs,mix = [],fm.mixup_batch if k=='mixup' else fm.cutmix_batch
            flat = nn.Sequential(nn.Flatten(), nn.Linear(3*256, 5)).to(r.device) # PyTorch has more graphs of a convolution, by batch size
            def backend(g, _):
                graphs.append(g)
                return g.forward
            def whole(x, y):
                xm,y1,l,*_ = mix(x, y)
                return loss(flat(xm), y, yb1=y1, lam=l)
            f = torch.compile(whole, fullgraph=True, backend=backend)
            for n in (4,6,5,7,9,16,3,8,2,11): f(torch.randn(n,3,16,16, device=r.device), torch.randint(5, (n,), device=r.device))
            assert len(graphs)<=2, f'{len(graphs)} graphs'
            return 0
        r.check('torch.compile', f'{k}, graphs of 10 batch sizes', count)

def cuda_graphs(r):
    "Recorded once and replayed on other batches, a mix is right for each, and drawn anew"
    y = torch.arange(8., device=r.device)
    x = y.view(-1,1,1,1).expand(-1,1,16,16).contiguous()
    for k,mix in dict(mixup=fm.mixup_batch, cutmix=fm.cutmix_batch).items():
        def go():
            for _ in range(3): mix(x, y)
            r.wait()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph): xm,y1,lam,*_ = mix(x, y)
            lams = []
            for _ in range(3):
                graph.replay()
                lams.append(lam.tolist())
                res = differ([xm.mean((1,2,3))], [lam*y+(1-lam)*y1], 1e-5)
            assert lams[0]!=lams[1], 'the same draws each time'
            return res
        r.check('CUDA graphs', k, go)

def precision(r):
    precisions(r)
    compiled(r)
    if r.cuda: cuda_graphs(r)

# ---- (4) speed

def runnable(r, fs):
    "Those of `fs` that run there; what another library can't do is no failure of this one"
    res = {}
    for k,f in fs.items():
        try: [o() for o in (f if isinstance(f, tuple) else (f,))]
        except Exception as e:
            if k.startswith('fastmix'): raise
            print(f'{k} is left out: {type(e).__name__}: {" ".join(str(e).split())[:200]}', flush=True)
        else: res[k] = f
    return res

def speed(r):
    "Batches by fastmix and by others, and steps of a network with each mixer"
    seconds,shapes = (.05,[(16,3,32,32)]) if r.quick else (3,[(64,3,224,224),(256,3,224,224),(256,3,32,32)])
    def clock():
        r.wait()
        return time.perf_counter()
    for shape in shapes:
        x,y = torch.rand(shape, device=r.device),torch.randint(10, shape[:1], device=r.device)
        for what,fs in (('MixUp',mixups(x, y)),('CutMix',cutmixes(x, y))):
            times = race(runnable(r, {'read and write a batch':x.clone} | fs), seconds, clock=clock)
            res = {o['name']: o for o in rows(r.section, what, name_of(shape), times, 'fastmix')}
            limit = 1.5*res['read and write a batch']['value'] # two batches read and one written
            r.res += [*res.values(), row(r.section, what, name_of(shape), 'fastmix over the limit (three batches moved at measured bandwidth)',
                res['fastmix']['value']/limit, 'ratio')]
    network_steps(r, seconds, clock)

def network_steps(r, seconds, clock):
    n,size = (8,32) if r.quick else (64,224)
    both = {}
    for k,make in dict(none=None, **mixers).items():
        torch.manual_seed(0)
        both[k] = stepper(r, make and make(), resnet18(num_classes=5), n=n, size=size, bs=n)[1:]
    times = race({k: step for k,(step,_) in both.items()}, 10*seconds, least=2 if r.quick else 7, clock=clock)
    for _,end in both.values(): end()
    r.res += rows(r.section, 'step of a ResNet-18', f'{n}x3x{size}x{size}', times, 'none')

# ---- (5) CIFAR-10

def cifar_data(folder, device):
    "Training and test images, normalised, and labels, on the device"
    def load(names):
        parts = [pickle.loads((Path(folder)/o).read_bytes(), encoding='bytes') for o in names]
        x = torch.from_numpy(np.concatenate([o[b'data'] for o in parts])).view(-1,3,32,32).to(device).float()/255
        mean,std = (torch.tensor(o, device=device).view(1,3,1,1) for o in ((.4914,.4822,.4465),(.2470,.2435,.2616)))
        return (x-mean)/std,torch.tensor([i for o in parts for i in o[b'labels']], device=device)
    return *load(sorted(o.name for o in Path(folder).glob('data_batch*'))),*load(['test_batch'])

def made_up(folder, n=64):
    "Files like those of CIFAR-10, of noise"
    for name in ('data_batch_1','test_batch'):
        data = {b'data':np.random.randint(0, 256, (n,3072), dtype=np.uint8), b'labels':np.random.randint(0, 10, n).tolist()}
        (Path(folder)/name).write_bytes(pickle.dumps(data))

class Batches:
    "Batches of what lies on the device, cropped and flipped anew each time"
    dataset = None
    def __init__(self, x, y, bs, train): self.x,self.y,self.bs,self.train = F.pad(x, (4,)*4, mode='reflect') if train else x,y,bs,train
    def __len__(self): return len(self.y)//self.bs if self.train else -(-len(self.y)//self.bs)
    def __iter__(self):
        order = torch.randperm(len(self.y), device=self.y.device) if self.train else torch.arange(len(self.y), device=self.y.device)
        for i in range(len(self)):
            at = order[i*self.bs:(i+1)*self.bs]
            x = self.x[at]
            if self.train:
                dy,dx = np.random.randint(0, 9, 2)
                x = x[...,dy:dy+32,dx:dx+32]
                x = torch.where(torch.rand(len(x),1,1,1, device=x.device)<.5, x.flip(3), x)
            yield x.contiguous(memory_format=torch.channels_last),self.y[at]

def resnet9(width=64):
    def conv(i, o, pool): return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
        *[nn.MaxPool2d(2)]*pool)
    class Res(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.f = nn.Sequential(conv(n, n, False), conv(n, n, False))
        def forward(self, x): return x+self.f(x)
    w = width
    return nn.Sequential(conv(3, w, False), conv(w, 2*w, True), Res(2*w), conv(2*w, 4*w, True), conv(4*w, 8*w, True), Res(8*w),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(8*w, 10))

class Reached(Callback):
    "Seconds of training until the accuracy in validation is `goal`, and the best that there was; stops after `limit` seconds"
    order = 1000
    def __init__(self, goal, limit): self.goal,self.limit,self.seconds,self.best = goal,limit,None,0.
    def before_fit(self): self.start = time.perf_counter()
    def after_epoch(self):
        passed,acc = time.perf_counter()-self.start,self.recorder.values[-1][-1]
        self.best = max(self.best, acc)
        if acc>=self.goal and self.seconds is None: self.seconds = passed
        if passed>self.limit: raise CancelFitException()

def cifar(r):
    with tempfile.TemporaryDirectory() as tmp:
        if not r.cifar:
            if not r.quick: return print('No folder of CIFAR-10 was named: the time to 94 % is left out', flush=True)
            made_up(tmp)
        data = cifar_data(r.cifar or tmp, r.device)
    epochs,bs,width = (1,32,4) if r.quick else (30,512,64)
    for k,cb in dict(none=None, MixUp=fm.MixUp(.4)).items():
        torch.manual_seed(0)
        dls = DataLoaders(Batches(*data[:2], bs, True), Batches(*data[2:], bs, False), device=r.device)
        dls.n_inp = 1
        model = resnet9(width).to(r.device, memory_format=torch.channels_last)
        learn = Learner(dls, model, loss_func=nn.CrossEntropyLoss(label_smoothing=.1), metrics=accuracy, wd=5e-3,
            cbs=[Reached(.94, 150), *([cb] if cb else []), *([MixedPrecision()] if r.cuda else [])], path=tempfile.gettempdir())
        learn.remove_cb(ProgressCallback)
        learn.logger = noop
        learn.fit_one_cycle(epochs, 1e-2)
        r.wait()
        case = f'ResNet-9, {epochs} epochs'
        r.res += [row(r.section, 'CIFAR-10', case, k, learn.reached.seconds or 'not reached', 'seconds to 94 %'),
            row(r.section, 'CIFAR-10', case, k, learn.reached.best, 'best accuracy')]

sections = dict(functional=functional, waits=waits, precision=precision, speed=speed, cifar=cifar)

def write(r, out):
    "Both tables, with all that is known so far"
    info = versions('gpu', 1) | dict(device=torch.cuda.get_device_name() if r.cuda else str(r.device))
    update(out/'gpu.csv', columns, [rounded(o|dict(threads=1)) for o in r.res])
    update(out/'gpu_versions.csv', list(info), [info])

@call_parse
def main(
    device:str='cuda', # Where to run
    quick:bool=False, # In small, to see that it works
    only:str=','.join(sections), # Sections to run, separated by commas
    cifar:str='', # Folder with the files of CIFAR-10, `cifar-10-batches-py`
    out:Path=res_dir # Folder for the tables gpu.csv and gpu_versions.csv, which `quick` does not write
):
    "Try all that fastmix does on a card; ends with an error if something is wrong"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if not torch.cuda.is_available() and device.startswith('cuda'): sys.exit('No card was found. Try: python benchmarks/gpu.py --device cpu --quick')
    torch.manual_seed(0)
    r,start = Run(device, quick, cifar),time.perf_counter()
    for name in only.split(','):
        begin,n = time.perf_counter(),len(r.res)
        r.run(name)
        print(f'{name}: {time.perf_counter()-begin:.0f} s, {len(r.res)-n} rows', flush=True)
        for o in map(rounded, r.res[n:]):
            if name!='functional': print(f"  {o['what']} {o['case']} {o['name']}: {o['value']} {o['unit']} {o.get('ratio', '')}", flush=True)
        if not quick: write(r, Path(out))
    print(f'{len(r.res)} rows, {len(r.bad)} failed, {time.perf_counter()-start:.0f} s')
    if r.bad: sys.exit('\n'.join(r.bad))
