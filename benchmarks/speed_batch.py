"MixUp and CutMix of one batch, by fastmix and by others: time, memory, where the time goes, and what was tried"
import ctypes, gc, re, resource, torch
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from fastai.callback.mixup import CutMix as FastaiCutMix, MixUp as FastaiMixUp
from kornia.augmentation import RandomCutMixV2, RandomMixUpV2
from timm.data import Mixup
from torchvision.transforms import v2
from fastmix.all import box_lam, cutmix_batch, draw_boxes, draw_lam, draw_perm, mixup_batch
from fastmix.mix import _lerp_each
from fastmix.paste import box_mask, paste
from fastmix.tensors import over_samples, take
from speed_timing import name_of, race, row, rows

shapes = (64,3,224,224),(32,3,512,512),(256,3,32,32),(64,1,16000),(4,1,64,128,128)
limits = dict(MixUp='torch.lerp, operands ready', CutMix='clone')

def fastai_mix(cls, x, y, alpha):
    "What fastai's callback does in `before_batch`, on a stand-in for its Learner"
    cb = cls(alpha)
    cb.learn,cb.stack_y = SimpleNamespace(xb=(x,), yb=(y,), x=x, y=y),True
    def mix():
        cb.before_batch()
        res,cb.learn.xb = cb.learn.xb,(x,)
        return res
    return mix

def in_place(name, make, x):
    "The mix `make(own)` that writes into its batch, which it gets afresh each time: without this copying, and with it"
    own = x.clone()
    mix,refill = make(own),partial(own.copy_, x)
    def on_copy(): return make(x.clone())()
    return {name:(refill,mix), name+', on a copy':on_copy}

def timm_mixes(x, y, **kw):
    res = {}
    for mode in ('batch','elem'):
        f = Mixup(mode=mode, num_classes=10, **kw)
        res |= in_place(f'timm {mode}', lambda own, f=f: lambda: f(own, y), x)
    return res

def mixups(x, y):
    "The limit, fastmix and all others that take such a batch"
    w,x1 = over_samples(torch.rand(len(x), device=x.device), x),x[draw_perm(len(x), x.device)]
    res = {limits['MixUp']: lambda: torch.lerp(x1, x, w), 'fastmix': lambda: mixup_batch(x, y),
        'fastmix, one lambda': lambda: mixup_batch(x, y, per_sample=False), 'fastai': fastai_mix(FastaiMixUp, x, y, 0.4)}
    res |= timm_mixes(x, y, mixup_alpha=0.4)
    if x.ndim!=4: return res
    tv,kornia = v2.MixUp(alpha=0.4, num_classes=10),RandomMixUpV2(p=1., data_keys=['input','class'])
    return res | dict(torchvision=lambda: tv(x, y), kornia=lambda: kornia(x, y))

def cutmixes(x, y):
    "The same for CutMix"
    res = {limits['CutMix']: x.clone, 'fastmix': lambda: cutmix_batch(x, y), 'fastmix, one box': lambda: cutmix_batch(x, y, per_sample=False)}
    if x.ndim!=4: return res
    res |= in_place('fastai', lambda own: fastai_mix(FastaiCutMix, own, y, 1.), x) | timm_mixes(x, y, mixup_alpha=0., cutmix_alpha=1.)
    tv,kornia = v2.CutMix(num_classes=10),RandomCutMixV2(p=1., data_keys=['input','class'])
    return res | dict(torchvision=lambda: tv(x, y), kornia=lambda: kornia(x, y))

def batch_of(shape): return torch.rand(shape),torch.randint(10, shape[:1])
def both(x, y): return dict(MixUp=mixups(x, y), CutMix=cutmixes(x, y))

def batch(seconds):
    "Seconds of each library"
    res = []
    for shape in shapes:
        x,y = batch_of(shape)
        for what,fs in both(x, y).items(): res += rows('batch', what, name_of(shape), race(fs, seconds), 'fastmix')
    return res

def _status(key): return int(re.search(key+r':\s*(\d+) kB', Path('/proc/self/status').read_text())[1])*1024

def peak(f):
    "Bytes of memory of this process that `f` takes at its peak beyond what was in use, its result included (Linux only)"
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5') # forget earlier peaks
    before = _status('VmRSS')
    f()
    return _status('VmHWM')-before

def memory(seconds):
    "Peak extra memory of each library, in batches; of batches so large that memory which is let go returns to the system"
    res = []
    for shape in shapes[:2]:
        x,y = batch_of(shape)
        for what,fs in both(x, y).items():
            for k,f in fs.items():
                ready,f = f if isinstance(f, tuple) else (lambda: None,f)
                peaks = []
                for _ in range(4):
                    ready()
                    peaks.append(peak(f))
                res.append(row('memory', what, name_of(shape), k, sorted(peaks[1:])[1]/x.nbytes, 'batches'))
    return res

def parts(seconds):
    "Seconds of the steps of fastmix's functions"
    res = []
    for shape in (shapes[0],shapes[2]):
        x,y = batch_of(shape)
        n,size,new = len(x),shape[2:],'of this: memory of a batch, filled once'
        perm,lam = draw_perm(n),draw_lam(n, 0.4)
        boxes = draw_boxes(size, draw_lam(n, 1., False))
        def fill(): return torch.empty_like(x).fill_(0)
        mix = {'whole': lambda: mixup_batch(x, y), 'draw partners and lambdas': lambda: (draw_perm(n),draw_lam(n, 0.4)),
            'interpolate': lambda: mixup_batch(x, perm=perm, lam=lam), new: fill, 'take targets': lambda: take(y, perm)}
        cut = {'whole': lambda: cutmix_batch(x, y), 'draw partners and boxes': lambda: (draw_perm(n),draw_boxes(size, draw_lam(n, 1., False))),
            'copy the batch and paste the boxes': lambda: paste(x, perm, boxes), new: fill, 'of this: the copy': x.clone,
            'exact lambdas': lambda: box_lam(boxes, size), 'take targets': lambda: take(y, perm)}
        for what,fs in (('MixUp',mix),('CutMix',cut)): res += rows('parts', what, name_of(shape), race(fs, seconds/2))
    return res

def tried(seconds):
    "Seconds of other ways to the same result"
    res = []
    for shape in (shapes[0],shapes[2]):
        x = torch.rand(shape)
        n = len(x)
        perm,lam,boxes = draw_perm(n),draw_lam(n, 0.4),draw_boxes(shape[2:], draw_lam(n, 1., False))
        w = over_samples(lam, x)
        mix = {'fastmix': lambda: mixup_batch(x, lam=lam, perm=perm)[0], 'take(x, perm).lerp_(x, lam)': lambda: take(x, perm).lerp_(x, w),
            'x[perm].lerp_(x, lam)': lambda: x[perm].lerp_(x, w), 'torch.lerp(x[perm], x, lam)': lambda: torch.lerp(x[perm], x, w),
            'lam*x + (1-lam)*x[perm]': lambda: w*x + (1-w)*x[perm],
            'torch.lerp(x[j], x[i], lam[i]) for each i': lambda: _lerp_each(x, perm, lam)}
        cut = {'fastmix': lambda: cutmix_batch(x, perm=perm, boxes=boxes)[0],
            'torch.where of masks': lambda: torch.where(box_mask(boxes, shape[2:]), take(x, perm), x)}
        for what,fs in (('MixUp',mix),('CutMix',cut)):
            for f in fs.values(): torch.testing.assert_close(f(), fs['fastmix']())
            res += rows('tried', what, name_of(shape), race(fs, seconds/2))
    return res

def keep_memory():
    "Let malloc keep memory that is freed, also blocks of more than 32 MB, which it gives back to the system otherwise (glibc only)"
    m_mmap_threshold,m_trim_threshold = -3,-1
    libc = ctypes.CDLL('libc.so.6')
    libc.mallopt(m_mmap_threshold, 2**30)
    libc.mallopt(m_trim_threshold, 2**31-1)

def faults(f):
    "Pages of memory that the system hands out while `f` runs"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    f()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt-before

def pages(seconds):
    "Seconds with memory that is new to the process for each batch, as is usual, and with memory that malloc kept"
    x,y = batch_of(shapes[0])
    all_fs,res = both(x, y),[]
    for how in ('new','kept'):
        if how=='kept': keep_memory()
        for what,fs in all_fs.items():
            fs = {k:v for k,v in fs.items() if k!='kornia'}
            res += rows('pages', f'{what}, memory {how}', name_of(x.shape), race(fs, seconds), 'fastmix')
            n = sorted(faults(fs['fastmix']) for _ in range(5))[2]
            res.append(row('pages', f'{what}, memory {how}', name_of(x.shape), 'fastmix', n*resource.getpagesize()/x.nbytes, 'batches of new pages'))
    return res
