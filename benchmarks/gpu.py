"""What fastmix does on a GPU: right, without waiting, in every precision, and how fast. Run it on your card and send the two tables

python benchmarks/gpu.py                        # at most 8 minutes; results go to benchmarks/results
python benchmarks/gpu.py --cifar CIFAR_FOLDER   # with the time to 94 % on CIFAR-10, from its folder `cifar-10-batches-py`
python benchmarks/gpu.py --device cpu --quick   # in small and without a card, to see that it works"""
import contextlib, itertools, pickle, sys, tempfile, time, torch, torch.nn.functional as F, warnings
import numpy as np
from fastcore.script import call_parse
from pathlib import Path
from torch import nn
from fastai.basics import Callback, DataLoaders, Learner, Recorder, accuracy, noop
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy
import fastmix.all as fm
from fastmix.draw import perm_within
from speed import columns, res_dir, rounded, update, versions
from speed_timing import name_of, race, row, rows

warnings.filterwarnings('ignore')

class Run:
    "Where and how large things are tried, and all that came of it"
    def __init__(self, device, quick, cifar): self.device,self.quick,self.cifar,self.res,self.bad = torch.device(device),quick,cifar,[],[]
    @property
    def cuda(self): return self.device.type=='cuda'
    def wait(self): return torch.cuda.synchronize() if self.cuda else None

    def check(self, what, case, f):
        "Note whether `f` holds: it returns the largest difference, or raises"
        try: self.res.append(row(self.section, what, case, 'fastmix', float(f()), 'largest difference'))
        except Exception as e:
            self.bad.append(f'{self.section}: {what}, {case}: {type(e).__name__}: {" ".join(str(e).split())[:300]}')
            print('FAIL', self.bad[-1], flush=True)
            self.res.append(row(self.section, what, case, 'fastmix', 'failed', 'largest difference'))

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

def losses(r):
    "Known losses with a lambda for each sample, values and gradients"
    w = torch.rand(5)
    fs = [nn.CrossEntropyLoss(w, ignore_index=1, label_smoothing=.1), nn.CrossEntropyLoss(), nn.NLLLoss(w), nn.MSELoss(), nn.L1Loss(),
        nn.SmoothL1Loss(), nn.HuberLoss(),
        nn.BCEWithLogitsLoss(pos_weight=w), nn.KLDivLoss(reduction='batchmean'), nn.PoissonNLLLoss(), nn.MultiMarginLoss(weight=w),
            CrossEntropyLossFlat(weight=w),
        LabelSmoothingCrossEntropy(weight=w)]
    for f in fs:
        by_class = any(o in str(f) for o in ('CrossEntropy','NLLLoss()','MultiMargin')) and 'Poisson' not in str(f)
        pred,y,lam = torch.randn(64,5).log_softmax(1),torch.randint(5, (64,)) if by_class else torch.rand(64,5),torch.rand(64)
        def one(dev):
            f.to(dev)
            p = pred.to(dev).requires_grad_()
            l = fm.MixUpLoss(f)(p, y.to(dev), yb1=y.roll(1, 0).to(dev), lam=lam.to(dev))
            return l,torch.autograd.grad(l, p)[0]
        r.check('losses', str(f), lambda: differ(one(r.device), one('cpu'), 1e-5))

mixers = dict(MixUp=fm.MixUp, CutMix=fm.CutMix, FMix=fm.FMix, ResizeMix=fm.ResizeMix, ManifoldMixUp=fm.ManifoldMixUp,
    OutputMixUp=fm.OutputMixUp,
    MixChoice=lambda **kw: fm.MixChoice(fm.MixUp(**kw), fm.CutMix(**kw)))

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
        learn = learner(r, dev, [make(generator=torch.Generator().manual_seed(1)), Losses()])
        learn.fit(2)
        return [*learn.losses.seen,*learn.model.parameters()]
    for k,make in mixers.items(): r.check('callbacks', k, lambda: differ(fit(r.device, make), fit('cpu', make), 1e-3))

def functional(r):
    for f in (batch_functions, draws, losses, callbacks): f(r)

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
    for k,make in dict(none=None, **mixers).items():
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
    kinds = [('bfloat16',dict(amp_mode='bf16'))] + [('float16 with GradScaler',{})]*r.cuda
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

def speed(r):
    from speed_batch import cutmixes, mixups
    seconds,shapes = (.1,[(16,3,32,32)]) if r.quick else (3,[(64,3,224,224),(256,3,224,224),(256,3,32,32)])
    def clock():
        r.wait()
        return time.perf_counter()
    for shape in shapes:
        x,y = torch.rand(shape, device=r.device),torch.randint(10, shape[:1], device=r.device)
        for what,fs in (('MixUp',mixups(x, y)),('CutMix',cutmixes(x, y))):
            fs = {'read and write a batch':x.clone} | fs
            times = race(fs, seconds, clock=clock)
            res = rows(r.section, what, name_of(shape), times, 'fastmix')
            moved = next(o['value'] for o in res if o['name']=='read and write a batch')*1.5
            ours = next(o['value'] for o in res if o['name']=='fastmix')
            r.res += res + [row(r.section, what, name_of(shape), 'fastmix over the limit (three batches moved at measured bandwidth)',
                ours/moved, 'ratio')]
    from torchvision.models import resnet18
    kw = dict(n=8, size=32, bs=8) if r.quick else dict(n=128, size=224, bs=128)
    both = {}
    for k,make in dict(none=None, **mixers).items():
        torch.manual_seed(0)
        both[k] = stepper(r, make and make(), resnet18(num_classes=5), **kw)[1:]
    times = race({k: step for k,(step,_) in both.items()}, 10*seconds, least=2 if r.quick else 7, clock=clock)
    for _,end in both.values(): end()
    r.res += rows(r.section, 'step of a ResNet-18', f"{kw['bs']}x3x{kw['size']}x{kw['size']}", times, 'none')

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
    "Seconds of training until the accuracy in validation is `goal`, and the best that there was"
    order = 1000
    def __init__(self, goal): self.goal,self.seconds,self.best = goal,None,0.
    def before_fit(self): self.start = time.perf_counter()
    def after_epoch(self):
        acc = float(self.recorder.log[-1] if not isinstance(self.recorder.log[-1], str) else self.recorder.log[-2])
        self.best = max(self.best, acc)
        if acc>=self.goal and self.seconds is None: self.seconds = time.perf_counter()-self.start

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
            cbs=[Reached(.94), *([cb] if cb else []),
            *([MixedPrecision(amp_mode='bf16')] if r.cuda else [])], path=tempfile.gettempdir())
        learn.remove_cb(ProgressCallback)
        learn.logger = noop
        learn.fit_one_cycle(epochs, 1e-2)
        r.wait()
        case = f'ResNet-9, {epochs} epochs'
        r.res += [row(r.section, 'CIFAR-10', case, k, learn.reached.seconds or 'not reached', 'seconds to 94 %'),
            row(r.section, 'CIFAR-10', case, k, learn.reached.best, 'best accuracy')]

sections = dict(functional=functional, waits=waits, precision=precision, speed=speed, cifar=cifar)

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
        r.section,begin,n = name,time.perf_counter(),len(r.res)
        sections[name](r)
        print(f'{name}: {time.perf_counter()-begin:.0f} s, {len(r.res)-n} rows', flush=True)
        for o in map(rounded, r.res[n:]):
            if name not in ('functional',): print(f"  {o['what']} {o['case']} {o['name']}: {o['value']} {o['unit']} {o.get('ratio', '')}",
                flush=True)
    if not quick:
        info = versions('gpu', 1) | dict(device=torch.cuda.get_device_name() if r.cuda else device)
        update(Path(out)/'gpu.csv', columns, [rounded(o|dict(threads=1)) for o in r.res])
        update(Path(out)/'gpu_versions.csv', list(info), [info])
    print(f'{len(r.res)} rows, {len(r.bad)} failed, {time.perf_counter()-start:.0f} s')
    if r.bad: sys.exit('\n'.join(r.bad))
