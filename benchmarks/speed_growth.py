"Imports, and how cost grows with the batch, the image, classes, layers and processes"
import json, statistics, subprocess, sys, tempfile, time, torch, torch.distributed as dist, torch.multiprocessing as mp
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from fastmix.all import ManifoldMixUp, MixUp, MixUpLoss, cutmix_batch, draw_lam, draw_perm, mixup_batch
from speed_step import race_steps, stepper
from speed_timing import name_of, race, row, rows

pairs = {'fastmix.mix':'import torch', 'fastmix.all':'from fastai.vision.all import *'}

def imports(seconds):
    "Seconds that an import takes in a fresh process, after those of the packages it builds on"
    times = {k:[] for k in pairs}
    for i in range(max(3, round(seconds))):
        for k,before in pairs.items():
            code = f"import time\n{before}\nstart = time.perf_counter()\nimport {k}\nprint(time.perf_counter()-start)"
            out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True).stdout
            if i: times[k].append(float(out)) # the first may have to read from disk
    return [row('import', f"{k} after {pairs[k]}", '', k, statistics.median(v), 'seconds', rounds=len(v)) for k,v in times.items()]

def by_shape(seconds):
    res = []
    for what,of in (('batch size',[(n,3,64,64) for n in (4,8,16,32,64,128,256,512)]),('image side',[(16,3,s,s) for s in (16,32,64,128,256,512)])):
        for shape in of:
            x,y = torch.rand(shape),torch.randint(10, shape[:1])
            fs = dict(MixUp=lambda: mixup_batch(x, y), CutMix=lambda: cutmix_batch(x, y), clone=x.clone)
            res += rows('growth', what, name_of(shape), race(fs, seconds), 'clone')
    return res

def by_classes(seconds):
    "The loss of one class a sample, forward and backward"
    res = []
    for n in (2,10,100,1000,10_000):
        pred = torch.randn(256, n, requires_grad=True)
        y,perm,lam = torch.randint(n, (256,)),draw_perm(256),draw_lam(256, 0.4)
        plain,mixed = nn.CrossEntropyLoss(),MixUpLoss(nn.CrossEntropyLoss())
        fs = {'plain': lambda: plain(pred, y).backward(), 'mixed': lambda: mixed(pred, y, yb1=y[perm], lam=lam).backward()}
        res += rows('growth', 'classes', str(n), race(fs, seconds))
    return res

def by_layers(seconds):
    "Steps of a network with 64 layers, of which some are listed for `ManifoldMixUp`"
    counts = 1,2,4,8,16,32,64
    def get_model(): return nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(64)], nn.Linear(64, 10))
    mixers = {'none':None} | {str(n): ManifoldMixUp(layers=[str(i*64//n) for i in range(n)]) for n in counts}
    times = race_steps(get_model, (torch.randn(256, 64),torch.randint(10, (256,))), mixers, 4*seconds)
    return [o|dict(case=o['name'], name='ManifoldMixUp' if o['name']!='none' else 'none') for o in rows('growth', 'layers listed', '', times)]

def calls(f):
    "How often `f` talks to other processes"
    with torch.profiler.profile() as prof: f()
    return sum(o.count for o in prof.key_averages() if o.key.startswith(('gloo:','c10d::')))

def _rank(rank, n, seconds, tmp):
    "One of `n` processes: times the mix of its own batch, and counts messages in a training step"
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f"file://{tmp}/meet", rank=rank, world_size=n)
    x,y = torch.rand(64, 3, 64, 64),torch.randint(10, (64,))
    get_model = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    counts = {}
    for k,cb in dict(none=None, MixUp=MixUp()).items():
        step,_ = stepper(DistributedDataParallel(get_model()), x, y, cb=cb)
        step()
        counts[k] = calls(step)
    dist.barrier()
    times = race({'MixUp': lambda: mixup_batch(x, y)}, seconds, clock=time.process_time)['MixUp']
    if not rank: (Path(tmp)/'out.json').write_text(json.dumps(dict(times=times, counts=counts)))
    dist.barrier()
    dist.destroy_process_group()

def by_ranks(seconds):
    "Processor time of the first of several processes that mix batches of their own, and messages it takes part in"
    res = []
    for n in (1,2,4):
        with tempfile.TemporaryDirectory() as tmp:
            mp.spawn(_rank, (n,seconds,tmp), nprocs=n)
            out = json.loads((Path(tmp)/'out.json').read_text())
        res.append(row('growth', 'ranks', str(n), 'MixUp', statistics.median(out['times']), 'processor seconds', rounds=len(out['times'])))
        res += [row('growth', 'ranks', str(n), k, v, 'messages in a step') for k,v in out['counts'].items()]
    return res

def growth(seconds):
    few = seconds/5
    return by_shape(few) + by_classes(few) + by_layers(few) + by_ranks(few)
