"Time of fastmix's batch functions against other libraries and the limit, as ratios: interleaved in one run, medians"
import statistics, time, torch
from fastcore.script import call_parse
from types import SimpleNamespace
from fastai.callback.mixup import CutMix as FastaiCutMix, MixUp as FastaiMixUp
from fastmix.all import cutmix_batch, draw_perm, mixup_batch

shapes = (64,3,224,224),(256,3,32,32),(32,3,512,512),(64,1,16000),(4,1,64,128,128)

def fastai_mix(cls, x, y, alpha):
    "What fastai's callback does in `before_batch`, on a copy-free stand-in for its Learner"
    cb = cls(alpha)
    cb.learn = SimpleNamespace(xb=(x,), yb=(y,), x=x, y=y)
    cb.stack_y = True
    return cb.before_batch

def peers(x, y):
    "Name: function that mixes one batch, for all libraries that can mix this shape"
    n,perm,lam = len(x),draw_perm(len(x)),torch.rand(len(x))
    w,x1 = lam.view(-1, *[1]*(x.ndim-1)),x[perm]
    mix = {'limit: lerp of ready operands': lambda: torch.lerp(x1, x, w), 'fastmix': lambda: mixup_batch(x, y), 'fastai': fastai_mix(FastaiMixUp, x, y, 0.4)}
    cut = {'limit: clone': x.clone, 'fastmix': lambda: cutmix_batch(x, y), 'fastmix, one box': lambda: cutmix_batch(x, y, per_sample=False)}
    if x.ndim!=4: return mix,cut
    from timm.data import Mixup
    from torchvision.transforms import v2
    from kornia.augmentation import RandomCutMixV2, RandomMixUpV2
    def timm(mode, **kw):
        f = Mixup(mode=mode, num_classes=10, **kw)
        return lambda: f(x.clone(), y) # it writes into the batch that it is given
    mix |= {'timm batch': timm('batch', mixup_alpha=0.4), 'timm elem': timm('elem', mixup_alpha=0.4)}
    cut |= {'fastai': fastai_mix(FastaiCutMix, x, y, 1.), 'timm batch': timm('batch', mixup_alpha=0., cutmix_alpha=1.),
        'timm elem': timm('elem', mixup_alpha=0., cutmix_alpha=1.)}
    tv = v2.MixUp(alpha=0.4, num_classes=10),v2.CutMix(num_classes=10)
    mix['torchvision'],cut['torchvision'] = (lambda: tv[0](x, y)),(lambda: tv[1](x, y))
    k = RandomMixUpV2(p=1., data_keys=['input','class']),RandomCutMixV2(p=1., data_keys=['input','class'])
    mix['kornia'],cut['kornia'] = (lambda: k[0](x, y)),(lambda: k[1](x, y))
    return mix,cut

def medians(fs, repeats):
    "Median seconds of each function, one call of each in turn"
    times = {k:[] for k in fs}
    for i in range(repeats+2):
        for k,f in fs.items():
            start = time.perf_counter()
            f()
            if i>1: times[k].append(time.perf_counter()-start)
    return {k: statistics.median(v) for k,v in times.items()}

@call_parse
def main(
    repeats:int=15, # Calls of each function that are timed
    threads:int=2 # Threads of PyTorch
):
    "Print the time of each library as a multiple of fastmix's, for MixUp and CutMix on images, signals and volumes"
    torch.set_num_threads(threads)
    for shape in shapes:
        x,y = torch.rand(shape),torch.randint(10, shape[:1])
        for name,fs in zip(('MixUp','CutMix'), peers(x, y)):
            t = medians(fs, repeats)
            print(f"{name} {'x'.join(map(str, shape))}, {1e3*t['fastmix']:.2f} ms: " + ', '.join(f"{k} {v/t['fastmix']:.2f}" for k,v in t.items() if k!='fastmix'))
